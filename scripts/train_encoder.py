"""Fine-tune the default encoder and its head together.

    python scripts/train_encoder.py DATA -o BUILD
    python scripts/quantize_encoder.py DATA BUILD -o quantized/encoder.gguf
    python scripts/train_encoder.py DATA -o BUILD --gguf quantized/encoder.gguf

DATA is the folder that training_data.py reads. BUILD receives the float weights in the layout of
the base model, a log of every figure and, while training, the state from which the same command
goes on; the last command binds the head to the quantized encoder. scoreboard.py says what came of
it. Needs the extra ``train`` (torch on a CPU) and the package of teachers.py. Two idle cores train
on 3,500 to 4,700 tokens a second: the shipped configuration takes about three hours.

--start FOLDER --begun N goes on from shipped models that have seen N tokens, at that place of the
schedule, and writes the mean of both ends (``start_share``). The shipped build did so.

What is trained on, by pool: the labelled sets, texts written for this project, subreddits as weak
labels, archive posts and questions, texts made of others (joined, buried, decorated, disguised,
framed), and patterns of hard cases. The loss is logistic over the labels that are known. Three
things keep a set's style from standing in for its labels:

- each style (wiki talk, prompts, tweets, ...) has an offset of its own for every output, learned
  with the rest and dropped afterwards, so that base rates are not what is learned;
- a text is judged by the greatest of its windows, much as in scoring, so that the harmless windows
  of a violating text are not taught to be violations;
- a second head learns the probabilities that other classifiers give every text (teachers.py), and
  where no person labelled a text for hate, insults, threats or toxicity, it takes theirs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BertModel

import training_data
from assistant_cases import ASSISTANT_SLOTS
from build_log import log
from edgemod.encoder import reading, windows
from edgemod.store import sha256
from edgemod.words import ANY, OUTPUTS
from make_encoder import gguf_name, source_folder
from teachers import OPINIONS, PROFANITY, opinions
from train_filter import join
from training_data import (
    QUIET_TOPICS,
    TrainingData,
    bury,
    concatenate,
    decorate,
    disguised,
    frame,
    load_hard_cases,
    load_train,
    load_weak_topics,
    load_written,
    without_apart,
)

Floats = NDArray[np.float32]

TEACHERS: Final = len(OUTPUTS)
"""The first column behind the outputs: the probabilities that other classifiers give."""

TAUGHT: Final = {
    "hate": "identity_hate",
    "harassment": "insult",
    "threat_violence": "threat",
    "toxic": "toxic",
}
"""Outputs that take another classifier's opinion where no person gave a label."""

STYLES: Final = {
    "prompts": "ailuminate_demo_prompts catqa certified_safety_prompts gptfuzz_prompts multijail "
    "benign_banking77 benign_clinc150 questions requests framed tasks",
    "replies": "gptfuzz_responses diasafety replies",
    "wiki": "context_toxicity jigsaw_wiki_binary jigsaw_wiki_multilabel",
    "forum": "archive weak_topics joined buried decorated disguised edos online_misogyny "
    "toxic_spans_semeval",
    "written requests": "written/chat_prompts written/chats written/cyber written/everyday "
    "written/request_contrasts written/request_pairs written/requests written/technical",
    "written replies": "written/answers written/replies written/replies_long written/reply_pairs",
    "written talk": "written/comments written/essays written/forum_talk written/gamechat "
    "written/groups written/groups_pairs written/intimate written/long written/news written/posts "
    "written/selfharm written/sexual written/stories written/tweets written/violence "
    "written/web_passages written/webtexts",
    "messages": "sms_spam sms_smishing tg_spam presidio_synth_pii",
}
"""Sets that share an offset; every other set has one of its own."""

UNUSUAL: Final = ("threat_violence", "self_harm", "spam_scam", "illicit", "pii")
"""What an archive of posts hardly ever holds."""


@dataclass(frozen=True)
class Pool:
    """n texts to train on."""

    texts: list[str]
    targets: Floats
    """(n, 16), columns ``OUTPUTS`` and ``OPINIONS``: 0 to 1, NaN where unknown."""
    importance: Floats
    """(n, 16): how much each target counts."""
    draw: Floats
    """(n,): how often a row is drawn, relative to the others."""
    style: NDArray[np.int64]
    """(n,): index of the style whose offset applies."""


# -- the pools ---------------------------------------------------------------------------------


def pools(data: Path, config: dict[str, Any]) -> Pool:
    """Everything to train on, none of it in the holdout."""
    rng = np.random.default_rng(config["seed"])
    parts: list[tuple[TrainingData, Floats]] = []

    labelled = load_train(data)
    labelled = labelled.take(~labelled.holdout)
    parts.append((labelled, _targets(labelled)))
    weak = load_weak_topics(data)
    weak = weak.take(~weak.holdout)
    parts.append((weak, _targets(weak)))
    written = load_written()
    written = written.take(~written.holdout)
    parts.append((written, _targets(written)))
    joined = join(labelled, config["joined"], config["seed"])
    parts.append((joined, _targets(joined)))
    buried = bury(concatenate([labelled, weak, written]), config["buried"], config["seed"])
    parts.append((buried, _targets(buried)))
    decorated = decorate(labelled, config["decorated"], config["seed"])
    parts.append((decorated, _targets(decorated)))
    hidden = disguised(concatenate([labelled, written]), config["disguised"], config["seed"])
    parts.append((hidden, _targets(hidden)))
    parts += [
        _archive(data, rng, config["archive"]),
        _tasks(data, rng, config["tasks"]),
        _questions(data, config["questions"]),
    ]
    hard = load_hard_cases(config["hard_cases"], config["seed"])
    parts.append((hard, _targets(hard)))
    asked = concatenate([labelled, written, parts[-2][0], hard])
    framed = frame(asked, config["framed"], config["seed"])
    parts.append((framed, _targets(framed)))

    texts = [text for part, _ in parts for text in part.texts]
    targets = np.concatenate([t for _, t in parts])
    draw = np.concatenate([part.weights for part, _ in parts]).astype(np.float64)
    names = np.concatenate([part.sets for part, _ in parts])
    for name, factor in config["draw"].items():
        draw[np.char.startswith(names, name)] *= factor
    importance = _importance(targets, draw, names, config["rare"])
    opinion = opinions(texts)
    targets[:, TEACHERS:], importance[:, TEACHERS:] = opinion, config["teacher"]
    posts = np.isin(names, ("archive", "tasks", *(f"reddit/{topic}" for topic in QUIET_TOPICS)))
    both = [OPINIONS.index(name) for name in (PROFANITY, "toxic")]
    toxic = opinion[posts][:, both].mean(axis=1)
    for output, least in (("toxic", 0.02), (ANY, 0.04)):
        k = OUTPUTS.index(output)
        targets[posts, k] = toxic.clip(least, 1 - least)
        importance[posts, k] = config["taught"]
    for output, name in TAUGHT.items():
        k = OUTPUTS.index(output)
        unknown = np.isnan(targets[:, k])
        targets[unknown, k] = opinion[unknown, OPINIONS.index(name)].clip(0.02, 0.98)
        importance[unknown, k] = config["taught"]
    styles = {one: style for style, sets in STYLES.items() for one in sets.split()}
    kinds = ["weak_topics" if name.startswith("reddit/") else str(name) for name in names]
    named = [styles.get(kind, kind) for kind in kinds]
    order = sorted(set(named))
    style = np.array([order.index(name) for name in named])
    return Pool(texts, targets, importance, draw.astype(np.float32), style)


def _targets(data: TrainingData) -> Floats:
    labels = without_apart(data)
    targets = np.full((len(labels), TEACHERS + len(OPINIONS)), np.nan, np.float32)
    targets[:, :TEACHERS] = np.where(labels < 0, np.nan, labels)
    return targets


def _importance(
    targets: Floats, draw: NDArray[np.float64], names: NDArray[np.str_], rare: float
) -> Floats:
    """What each target counts: rare positives more, labels that no person gave less."""
    known = ~np.isnan(targets)
    positive = ((targets >= 0.5) & known).T @ draw
    negative = ((targets < 0.5) & known).T @ draw
    more = np.clip(negative / np.maximum(positive, 1.0), 1.0, None) ** rare
    importance = np.where(targets >= 0.5, more, 1.0) * known
    weak = np.char.startswith(names, "reddit/") | np.isin(names, ("archive", "tasks", "questions"))
    importance[weak] *= 0.5
    return importance.astype(np.float32)


def _ordinary(data: Path) -> pa.Table:
    """The archive without the topics that are weak labels and without what is marked as adult."""
    table = pq.read_table(data / "archive" / "reddit_top_200k.parquet")
    topics = np.array(table["subreddit"].to_pylist())
    adult = table["over_18"].to_numpy()
    return table.filter(pa.array(~np.isin(topics, list(training_data.WEAK_TOPICS)) & ~adult))


def _archive(data: Path, rng: np.random.Generator, rows: int) -> tuple[TrainingData, Floats]:
    """Archive posts, presumed not to be what an archive of posts hardly ever holds."""
    table = _ordinary(data)
    chosen = np.sort(rng.choice(table.num_rows, rows, replace=False))
    labels = dict.fromkeys(UNUSUAL, 0)
    return _unlabelled(training_data.posts(table.take(pa.array(chosen))), labels, "archive")


def _tasks(data: Path, rng: np.random.Generator, rows: int) -> tuple[TrainingData, Floats]:
    """Archive posts behind an instruction, as people hand texts to an assistant."""
    texts, labels = _archive(data, rng, rows)[0].texts, dict.fromkeys(UNUSUAL, 0)
    tasks = rng.choice(ASSISTANT_SLOTS["task"].split("|"), len(texts))
    marks = rng.choice(("{task}: {text}", "{task}.\n\n{text}", "{text}\n\n{task}."), len(texts))
    framed = [
        str(mark).format(task=task, text=text)
        for mark, task, text in zip(marks, tasks, texts, strict=True)
    ]
    return _unlabelled(framed, labels, "tasks")


def _questions(data: Path, rows: int) -> tuple[TrainingData, Floats]:
    """Titles of posts that ask how to do something, as a prompt would; all but a few are safe."""
    ask = r"(?i)^(how (do|can|to|would|should)|what('s| is| are)|can (you|i)|is (it|there)|where "
    ask += r"(can|do)|why (do|is|are)|should i|explain|tell me|eli5)\b"
    titles = _ordinary(data)["title"]
    titles = titles.filter(pa.compute.match_substring_regex(titles, ask)).to_pylist()
    labels = dict.fromkeys((*UNUSUAL, ANY), 0)
    return _unlabelled(titles[:rows], labels, "questions")


def _unlabelled(texts: list[str], labels: dict[str, int], name: str) -> tuple[TrainingData, Floats]:
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    held = training_data.in_holdout(texts)
    texts = [text for text, out in zip(texts, held, strict=True) if not out]
    row = np.array([labels.get(output, -1) for output in OUTPUTS], np.int8)
    rows = np.repeat(row[None], len(texts), axis=0)
    part = TrainingData(
        texts,
        rows,
        np.full(len(texts), name),
        np.ones(len(texts), np.float32),
        np.zeros(len(texts), bool),
    )
    return part, _targets(part)


# -- the network -------------------------------------------------------------------------------


class Network(nn.Module):  # type: ignore[misc]
    """The encoder, the mean over its tokens, the head, the teachers' head and the offsets."""

    def __init__(self, folder: Path, styles: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.encoder = BertModel.from_pretrained(folder, add_pooling_layer=False)
        every, left = divmod(self.encoder.config.num_hidden_layers, layers)
        if left:
            raise SystemExit(f"the base has no {layers} layers evenly spaced")
        kept = [*self.encoder.encoder.layer][every - 1 :: every]
        self.encoder.encoder.layer = nn.ModuleList(kept)
        self.encoder.config.num_hidden_layers = layers
        size = self.encoder.config.hidden_size
        self.head = nn.Sequential(
            nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, len(OUTPUTS))
        )
        self.teacher = nn.Linear(size, len(OPINIONS))
        self.offsets = nn.Parameter(torch.zeros(styles, len(OUTPUTS)))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log-odds (windows, 16) of windows of token ids; ``mask`` is 1 for real tokens."""
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states, weight = states.float(), mask[..., None].float()
        mean = (states * weight).sum(1) / weight.sum(1)
        return torch.cat((self.head(mean), self.teacher(mean)), 1)


def batches(
    rows: NDArray[np.int64], tokens: Sequence[NDArray[np.int32]], config: dict[str, Any], seed: int
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Rows of like length together: (rows, ids, mask, which of the rows each window is of)."""
    rng = np.random.default_rng(seed)
    most, limit = config["windows"], config["batch_tokens"]
    cut: list[list[NDArray[np.int32]]] = []
    for row in rows:
        parts = windows(tokens[row], config["window"], config["overlap"])
        if len(parts) > most:
            parts = [parts[k] for k in rng.choice(len(parts), most, replace=False)]
        cut.append(parts)
    lengths = np.array([len(parts) * max(map(len, parts), default=0) for parts in cut])
    order = np.argsort(lengths + rng.random(len(rows)), kind="stable")
    order = order[lengths[order] > 0]
    groups: list[list[int]] = []
    held: list[int] = []
    longest = count = 0
    for index in order:
        size = max(map(len, cut[index])) + 2
        if held and max(longest, size) * (count + len(cut[index])) > limit:
            groups.append(held)
            held, longest, count = [], 0, 0
        held.append(index)
        longest, count = max(longest, size), count + len(cut[index])
    groups.append(held)
    for at in rng.permutation(len(groups)):
        group = groups[at]
        parts = [part for index in group for part in cut[index]]
        ids = np.zeros((len(parts), max(map(len, parts)) + 2), np.int64)
        for k, part in enumerate(parts):
            ids[k, : len(part) + 2] = (config["cls"], *part, config["sep"])
        owner = np.repeat(np.arange(len(group)), [len(cut[index]) for index in group])
        tensor = torch.from_numpy(ids)
        yield rows[group], tensor, (tensor != 0).long(), torch.from_numpy(owner)


def loss_of(
    network: Network, pool: Pool, batch: tuple[Any, ...], config: dict[str, Any]
) -> torch.Tensor:
    """The mean logistic loss of a batch, and what the offsets cost.

    A label that the network holds for unlikely counts for less, by its probability to the power
    ``doubt``: the gradient of the generalised cross entropy (Zhang and Sabuncu 2018, "Generalized
    cross entropy loss for training deep neural networks with noisy labels"). Nought counts all
    labels alike.
    """
    rows, ids, mask, owner = batch
    scores = network(ids, mask)
    index = owner[:, None].expand_as(scores)
    empty = torch.full((len(rows), scores.shape[1]), -torch.inf)
    greatest = empty.scatter_reduce(0, index, scores, "amax", include_self=False)
    targets = torch.from_numpy(pool.targets[rows])
    importance = torch.from_numpy(pool.importance[rows])
    offsets = network.offsets[torch.from_numpy(pool.style[rows])]
    shifted = torch.cat((greatest[:, :TEACHERS] + offsets, greatest[:, TEACHERS:]), 1)
    wanted = targets.nan_to_num(0.0) * (1 - 2 * config["smooth"]) + config["smooth"]
    given = shifted.detach().sigmoid()
    likely = torch.where(wanted >= 0.5, given, 1 - given) ** config["doubt"]
    likely[:, TEACHERS:] = 1.0  # opinions are no labels
    weight = importance * likely
    each = functional.binary_cross_entropy_with_logits(shifted, wanted, weight, reduction="sum")
    cost = config["offset_decay"] * network.offsets.square().mean()
    return each / importance.sum().clamp_min(1.0) + cost


def optimiser_of(network: Network, config: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW; lower layers take smaller steps."""
    layers = network.encoder.config.num_hidden_layers
    groups = []
    for name, weight in network.named_parameters():
        rate = config["rate_head"]
        if name.startswith("encoder."):
            depth = int(name.split(".")[3]) + 1 if ".layer." in name else 0
            rate = config["rate"] * config["layer_decay"] ** (layers - depth)
        groups.append({"params": [weight], "lr": rate, "peak": rate})
    return torch.optim.AdamW(groups, weight_decay=0.01, fused=True)


def rate_at(seen: int, config: dict[str, Any]) -> float:
    """Share of the peak rate after ``seen`` tokens.

    Cycles rise for a while and fall along a cosine (Loshchilov and Hutter 2017, "SGDR"), each to
    its peak.
    """
    ends = [0, *config["restarts"], config["tokens"]]
    cycle = max(k for k, end in enumerate(ends[:-1]) if end <= seen)
    share = min((seen - ends[cycle]) / (ends[cycle + 1] - ends[cycle]), 1.0)
    scale = min(share / config["warmup"], 1.0) * 0.5 * (1 + np.cos(np.pi * share))
    return float(max(scale, 1e-3)) * float(config["peaks"][cycle])


def take_up(network: Network, shipped: Path) -> int:
    """Start from the models in ``shipped``: the GGUF's weights, dequantized, and its head.

    Returns how many teachers that head has, the first of ``OPINIONS``. The others, and the styles'
    offsets, which are not shipped, start anew.
    """
    reader = GGUFReader(shipped / "encoder.gguf")
    tensors = {t.name: t for t in reader.tensors}
    layers = network.encoder.config.num_hidden_layers
    every = max(int(reader.fields["bert.block_count"].contents()) // layers, 1)
    kept: dict[str, torch.Tensor] = {}
    for name, weight in network.encoder.state_dict().items():
        tensor = tensors[_every(gguf_name(name), every)]
        values = dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        kept[name] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    network.encoder.load_state_dict(kept)
    head = {k: torch.from_numpy(v) for k, v in load_file(shipped / "head.safetensors").items()}
    first, last = network.head[0], network.head[-1]
    units = first.weight.shape[0]
    teachers = (len(head["hidden.bias"]) - units) // 2  # each has a unit for either sign
    with torch.no_grad():
        first.weight.copy_(head["hidden.weight"][:units])
        first.bias.copy_(head["hidden.bias"][:units])
        last.weight.copy_(head["output.weight"][:, :units])
        last.bias.copy_(head["output.bias"])
        network.teacher.weight[:teachers] = head["hidden.weight"][units : units + teachers]
        network.teacher.bias[:teachers] = head["hidden.bias"][units : units + teachers]
    return int(teachers)


def _every(name: str, every: int) -> str:
    """The tensor that a network of fewer layers takes for its own: the last of ``every`` ones."""
    if not name.startswith("blk."):
        return name
    _, layer, rest = name.split(".", 2)
    return f"blk.{int(layer) * every + every - 1}.{rest}"


def mix(network: Network, start: Network, teachers: int, share: float) -> None:
    """Move the weights towards those that training started from, with the first teachers alone.

    The mean of two models of one descent does better on sets that neither has seen than either
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
    """
    with torch.no_grad():
        for part, of in ((network.encoder, start.encoder), (network.head, start.head)):
            for weight, other in zip(part.parameters(), of.parameters(), strict=True):
                weight.lerp_(other, share)
        for weight, other in zip(
            network.teacher.parameters(), start.teacher.parameters(), strict=True
        ):
            weight[:teachers].lerp_(other[:teachers], share)


def train(
    data: Path, build: Path, config: dict[str, Any], shipped: Path | None, begun: int
) -> None:
    """Train, or go on training; the averaged weights are written to ``build``."""
    torch.manual_seed(config["seed"])
    folder = source_folder()
    pool = pools(data, config)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config["cls"], config["sep"] = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    read = reading(pa.array(pool.texts, pa.large_string()))
    tokens = [
        np.array(one.ids, np.int32)
        for one in tokenizer.encode_batch(read, add_special_tokens=False)
    ]
    size = (int(pool.style.max()) + 1, config["hidden"], config["layers"])
    network = Network(folder, *size)
    if shipped:
        take_up(network, shipped)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config["average"])
    )
    optimiser = optimiser_of(network, config)
    state, seen, part = build / "state.pt", begun, begun // config["batch_tokens"]
    if state.exists():
        saved = torch.load(state, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        seen, part = saved["seen"], saved["part"]
    log(build, rows=len(pool.texts), tokens=sum(map(len, tokens)), resumed_at=seen)
    chance = pool.draw / pool.draw.sum()
    while seen < config["tokens"]:
        rng = np.random.default_rng([config["seed"], part])
        rows = rng.choice(len(chance), config["slice"], p=chance / chance.sum())
        network.train()
        losses, began, before = [], time.monotonic(), seen
        for batch in batches(rows, tokens, config, part):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate_at(seen, config)
            loss = loss_of(network, pool, batch, config)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            average.update_parameters(network)
            seen += batch[1].numel()
            losses.append(loss.item())
        part += 1
        seconds = time.monotonic() - began
        rate = (seen - before) / seconds
        log(build, tokens=seen, loss=float(np.mean(losses)), tokens_a_second=round(rate))
        torch.save(
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "seen": seen,
                "part": part,
            },
            build / "state.tmp",
        )
        (build / "state.tmp").replace(state)
    if shipped:
        start = Network(folder, *size)
        mix(average.module, start, take_up(start, shipped), config["start_share"])
    write(average.module, folder, build, config)


def write(network: Network, folder: Path, build: Path, config: dict[str, Any]) -> None:
    """The encoder in the layout of the base model, and the head as edgemod reads it."""
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, build / name)
    network.encoder.config.save_pretrained(build)
    tensors = {n: t.detach().numpy() for n, t in network.encoder.state_dict().items()}
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, build / "model.safetensors")
    head: dict[str, Any] = head_of(network, config["opinion"])
    np.savez(build / "head.npz", **head)
    (build / "config.edgemod.json").write_text(json.dumps(config, indent=1))


def head_of(network: Network, opinion: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The head's tensors, with some of the other classifiers' log-odds t added to some outputs.

    Two more rectified units carry each t, since relu(t) - relu(-t) = t. ``opinion``: output to
    the share that it takes of each of ``OPINIONS``.
    """
    weights = [network.head[0], network.head[-1], network.teacher]
    (hidden, a), (output, b), (other, c) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in weights
    )
    share = np.array(
        [[opinion.get(output, {}).get(name, 0.0) for name in OPINIONS] for output in OUTPUTS],
        np.float32,
    )
    return {
        "hidden.weight": np.concatenate((hidden, other, -other)),
        "hidden.bias": np.concatenate((a, c, -c)),
        "output.weight": np.concatenate((output, share, -share), axis=1),
        "output.bias": b,
    }


# -- what came of it ---------------------------------------------------------------------------


def bind(build: Path, gguf: Path, output: Path) -> None:
    """Write the head for one GGUF, whose SHA-256 it names."""
    config = json.loads((build / "config.edgemod.json").read_text())
    facts = {
        "outputs": OUTPUTS,
        "window": config["window"],
        "overlap": config["overlap"],
        "aggregation": "max",
        "base_sha256": sha256(gguf),
        "training": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
    }
    with np.load(build / "head.npz") as head:
        tensors = {name: np.ascontiguousarray(head[name], np.float32) for name in head.files}
    # One key: safetensors writes several in any order, and equal heads shall be equal bytes.
    save_file(tensors, output, metadata={"head": json.dumps(facts)})
    output.chmod(0o644)


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--build", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "encoder.toml")
    parser.add_argument("--gguf", type=Path, help="bind the head to this GGUF, instead of training")
    parser.add_argument("--head", type=Path, default=Path("quantized/head.safetensors"))
    parser.add_argument("--start", type=Path, help="go on from the models in this folder")
    parser.add_argument("--begun", type=int, default=0, help="tokens that they have seen")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    if options.gguf:
        bind(options.build, options.gguf, options.head)
    else:
        config = tomllib.loads(options.config.read_text())
        train(options.data, options.build, config, options.start, options.begun)


if __name__ == "__main__":
    main()
