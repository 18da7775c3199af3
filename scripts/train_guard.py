"""Train a guard's adapter: a small instruction model learns to judge by a policy in plain words.

    python scripts/train_guard.py DATA -o BUILD

DATA is the folder that training_data.py reads. BUILD receives adapter.gguf (a LoRA; Hu et al. 2021,
"LoRA: Low-Rank Adaptation of Large Language Models") and log.jsonl, with the guard's AUPRC on dev
sets after more and more examples. Needs the extra ``train`` and the package of the model.

Every example is the guard's own prompt, token by token: a policy of one or two categories in one of
many wordings, a text, and the question whether it violates the policy. Categories that the settings
leave out are never mentioned. They stand for the policies that users write, and what counts is the
AUPRC on them; all are measured with the definitions of the default policy, which training has not
seen either.

The texts of a step follow one policy: they share its tokens, and none sees another.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFWriter
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from build_log import log
from edgemod import metrics, policy, prompts, store
from edgemod.llama import Llama
from edgemod.policy import Category
from edgemod.words import CATEGORIES, OUTPUTS
from training_data import TrainingData, concatenate, load_dev, load_train, load_written

MODEL: Final = "smollm2"

TARGETS: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The matrices that are adapted: their names in transformers and in GGUF."""

MEASURED: Final = (
    ("xstest", "illicit"),
    ("sdcnl_suicide_depression", "self_harm"),
    ("surge_toxicity", "toxic"),
    ("ethos", "hate"),
    ("kaggle_insults", "harassment"),
    ("sms_spam_dev", "spam_scam"),
)
"""Dev sets and the label that the guard is asked for."""


class Adapted(nn.Module):  # type: ignore[misc]
    """A frozen matrix and its low-rank update, which is 0 at first."""

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.frozen, self.scale = frozen, alpha / rank
        self.a = nn.Parameter(torch.randn(rank, frozen.in_features) / frozen.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x W + scale x A B, shape (..., out)."""
        update = functional.linear(functional.linear(x, self.a), self.b)
        return self.frozen(x) + self.scale * update


@dataclass(frozen=True)
class Prompt:
    """What the guard reads around a text, in tokens."""

    start: NDArray[np.int32]
    suffix: NDArray[np.int32]


class Reader:
    """The guard's vocabulary and prompts."""

    def __init__(self, path: Path) -> None:
        self.llama = Llama(path, vocab_only=True)
        self.chat = self.llama.metadata("tokenizer.chat_template") or ""

    def prompt(self, categories: list[Category]) -> Prompt:
        """The prompt that edgemod builds for these categories."""
        template = prompts.build("yes-no", self.chat, categories)
        tokens = [
            self.llama.tokenize(text.encode(), special=True)
            for text in (template.prefix, template.questions[0].suffix)
        ]
        return Prompt(*tokens)

    def body(self, text: str, most: int) -> NDArray[np.int32]:
        """A text between its marks, its first ``most`` tokens."""
        template = prompts.build("yes-no", self.chat, [_category(CATEGORIES[0], "")])
        shown = self.llama.tokenize(template.contained(text).encode())[:most]
        header, footer = (
            self.llama.tokenize(side.encode()) for side in (template.header, template.footer)
        )
        return np.concatenate((header, shown, footer))

    def answers(self) -> list[int]:
        """The tokens of yes and no."""
        return [int(self.llama.tokenize(word.encode())[0]) for word in ("Yes", "No")]


def _category(name: str, definition: str) -> Category:
    return Category(name, 3, definition, None, None)


def adapt(network: nn.Module, config: dict[str, Any]) -> dict[str, Adapted]:
    """Freeze the network and put an update beside each of ``TARGETS``; by their names in GGUF."""
    for weight in network.parameters():
        weight.requires_grad_(False)
    updates = {}
    for number, layer in enumerate(network.model.layers):
        for name, short in TARGETS.items():
            part, leaf = name.split(".")
            owner = getattr(layer, part)
            update = Adapted(getattr(owner, leaf), config["rank"], config["alpha"])
            setattr(owner, leaf, update)
            updates[f"blk.{number}.{short}.weight"] = update
    return updates


def log_odds(
    network: nn.Module, answers: list[int], prompt: Prompt, bodies: list[NDArray[np.int32]]
) -> torch.Tensor:
    """Log-odds (n,) of yes against no for texts that follow one prompt, each on its own."""
    runs = [np.concatenate((body, prompt.suffix)) for body in bodies]
    start = len(prompt.start)
    ends = start + np.cumsum([len(run) for run in runs])
    ids = torch.from_numpy(np.concatenate((prompt.start, *runs)).astype(np.int64))
    owner = torch.zeros(len(ids), dtype=torch.long)
    position = torch.arange(len(ids))
    for number, (end, run) in enumerate(zip(ends, runs, strict=True), start=1):
        owner[end - len(run) : end] = number
        position[end - len(run) : end] = start + torch.arange(len(run))
    order = torch.arange(len(ids))
    seen = (order[:, None] >= order[None]) & ((owner[None] == 0) | (owner[:, None] == owner[None]))
    mask = torch.zeros(len(ids), len(ids)).masked_fill(~seen, -torch.inf)
    with torch.autocast("cpu", torch.bfloat16):
        states = network.model(
            input_ids=ids[None],
            attention_mask=mask[None, None].bfloat16(),
            position_ids=position[None],
            use_cache=False,
        ).last_hidden_state[0, torch.from_numpy(ends - 1)]
    logits = states.float() @ network.lm_head.weight[answers].float().T
    return logits[:, 0] - logits[:, 1]


def draw(
    data: TrainingData, rng: np.random.Generator, config: dict[str, Any]
) -> tuple[list[Category], np.ndarray, np.ndarray]:
    """A policy, and rows and labels to judge by it: half of them violate it.

    Of those that do not, half violate something else where the data knows of any.
    """
    known = [name for name in CATEGORIES if name in config["definitions"]]
    count = 1 + (rng.random() < config["two_categories"])
    chosen = [known[k] for k in rng.choice(len(known), count, replace=False)]
    columns = [OUTPUTS.index(name) for name in chosen]
    labels = data.labels[:, columns]
    yes = (labels == 1).any(axis=1)
    no = (labels == 0).all(axis=1)
    left = [OUTPUTS.index(name) for name in config["left_out"]]
    no &= ~(data.labels[:, left] == 1).any(axis=1)
    other = no & (data.labels[:, : len(CATEGORIES)] == 1).any(axis=1)
    chance = data.weights.astype(np.float64)
    rows, targets = [], []
    for mask, label, share in ((yes, 1, 0.5), (no & ~other, 0, 0.25), (other, 0, 0.25)):
        index = np.flatnonzero(mask)
        if len(index):
            p = chance[index] / chance[index].sum()
            picked = rng.choice(index, max(1, round(12 * share)), p=p)
            rows.append(picked)
            targets.append(np.full(len(picked), label))
    wordings = [config["definitions"][name] for name in chosen]
    policy_ = [
        _category(name, str(rng.choice(options)))
        for name, options in zip(chosen, wordings, strict=True)
    ]
    order = rng.permutation(sum(map(len, rows)))
    return policy_, np.concatenate(rows)[order], np.concatenate(targets)[order]


def train(data: Path, build: Path, config: dict[str, Any]) -> None:
    """Train, and measure on the way."""
    torch.manual_seed(config["seed"])
    entry = store.resolve(MODEL)
    store.check(entry)
    path = entry.path
    reader = Reader(path)
    answers = reader.answers()
    network = LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    updates = adapt(network, config)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    log(build, parameters=sum(weight.numel() for weight in weights))
    optimiser = torch.optim.AdamW(weights, lr=config["rate"], weight_decay=0.0)
    texts = concatenate([load_train(data), load_written()])
    texts = texts.take(~texts.holdout & ~np.isin(texts.sets, config["without"]))
    rng = np.random.default_rng(config["seed"])
    done, marks, losses, began = 0, list(config["curve"]), [], time.monotonic()
    while marks:
        if done >= marks[0]:
            figures = measure(network, reader, answers, data)
            log(build, examples=marks.pop(0), seconds=round(time.monotonic() - began), **figures)
            write(updates, build / "adapter.gguf", config, network.config.head_dim)
            continue
        categories, rows, labels = draw(texts, rng, config)
        prompt = reader.prompt(categories)
        bodies: list[NDArray[np.int32]] = []
        room = config["pack_tokens"] - len(prompt.start)
        for row in rows:
            body = reader.body(texts.texts[row], config["text_tokens"])
            room -= len(body) + len(prompt.suffix)
            if room < 0 and bodies:
                break
            bodies.append(body)
        share = done / config["examples"]
        for group in optimiser.param_groups:
            rise = min(share / config["warmup"], 1.0)
            group["lr"] = config["rate"] * max(rise * (1 - share), 0.01)
        odds = log_odds(network, answers, prompt, bodies)
        targets = torch.from_numpy(labels[: len(bodies)].astype(np.float32))
        loss = functional.binary_cross_entropy_with_logits(odds, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        done += len(bodies)
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            log(build, examples=done, loss=float(np.mean(losses[-50:])))


def measure(
    network: nn.Module, reader: Reader, answers: list[int], data: Path, rows: int = 160
) -> dict[str, float]:
    """AUPRC on up to ``rows`` rows of ``MEASURED``, each by its category's default definition.

    Where a set knows of no harmless rows, those without a label count as such: posts of a forum
    about depression, against posts of one about suicide.
    """
    shipped = {category.name: category for category in policy.load_policy().categories}
    dev = load_dev(data)
    network.eval()
    figures = {}
    for name, label in MEASURED:
        part = dev[name]
        column = part.labels[:, OUTPUTS.index(label)]
        index = np.flatnonzero(column >= 0) if (column == 0).any() else np.arange(len(column))
        index = np.random.default_rng(0).permutation(index)[:rows]
        bodies = [reader.body(part.texts[row], 128) for row in index]
        prompt = reader.prompt([shipped[label]])
        scores = []
        with torch.inference_mode():
            for at in range(0, len(bodies), 6):
                scores += log_odds(network, answers, prompt, bodies[at : at + 6]).tolist()
        figures[f"{name}/{label}"] = round(
            float(metrics.average_precision(column[index] == 1, np.array(scores))), 3
        )
    network.train()
    return figures


def write(updates: dict[str, Adapted], path: Path, config: dict[str, Any], head: int) -> None:
    """The updates as llama.cpp reads them.

    llama.cpp keeps the rows of the query matrix in another order than transformers (the halves of
    each head, of ``head`` rows, are interleaved), so the rows of its update are put in that order.
    """
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", config["alpha"])
    for name, update in updates.items():
        a, b = update.a.detach().numpy(), update.b.detach().numpy()
        if ".attn_q." in name:
            b = b.reshape(-1, 2, head // 2, b.shape[1]).swapaxes(1, 2).reshape(b.shape)
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, np.float16))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--build", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "guard.toml")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    train(options.data, options.build, tomllib.loads(options.config.read_text()))


if __name__ == "__main__":
    main()
