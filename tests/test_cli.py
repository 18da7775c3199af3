"""The commands as a person or a program runs them: in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod.words import OUTPUTS

ROOT = Path(__file__).parents[1]


def run(*arguments: object, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgemod", *map(str, arguments)],
        input=stdin.decode("utf-8", "surrogateescape") if isinstance(stdin, bytes) else stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        errors="surrogateescape",
    )


def test_help_is_light() -> None:
    heavy = {"numba", "llama_cpp", "pyarrow", "numpy", "rich"}
    code = f"import sys, edgemod.cli; print({heavy} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert told.stdout.strip() == "set()"


def test_triage_json_is_alone_on_stdout(dump: Path, tmp_path: Path) -> None:
    told = run("triage", dump, "-o", tmp_path / "out", "--json", "--progress", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["records"] == 600
    events = [json.loads(line) for line in told.stderr.splitlines() if line.startswith("{")]
    assert events[-1]["records"] == 600
    assert "settled without a person" in told.stderr


def test_triage_is_silent_but_for_the_summary_off_a_terminal(dump: Path, tmp_path: Path) -> None:
    told = run(
        "triage",
        dump,
        "-o",
        tmp_path / "out",
        "--model",
        "none",
        "--id-column",
        "id",
        "--text-column",
        "text",
    )
    assert told.returncode == 0
    assert told.stdout == ""
    assert told.stderr.startswith("600 records")


def test_dry_run_writes_nothing(dump: Path, tmp_path: Path) -> None:
    told = run("triage", dump, "-o", tmp_path / "out", "--dry-run")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["records"] == 600
    assert plan["columns"]["text"] == ["text"]
    assert len(plan["policy"]) == 64
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    told = run("triage", dump, "-o", tmp_path / "out", "--dry-run")
    assert told.returncode == 1
    assert "holds no edgemod run" in told.stderr


def test_score_gives_a_json_line_a_text() -> None:
    told = run("score", "see you at eight", "my card is 4111 1111 1111 1111", "")
    assert told.returncode == 0, told.stderr
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [row["text"] for row in rows] == [0, 1, 2]
    assert set(rows[0]["probabilities"]) == set(OUTPUTS)
    assert (rows[1]["verdict"], rows[1]["category"], rows[1]["stage"]) == ("flag", "pii", "rule")
    assert [11, 30, "cards"] in rows[1]["fired"]
    assert rows[2]["verdict"] == "review"


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("see you at eight\n" * 3000)
    with subprocess.Popen(
        [sys.executable, "-m", "edgemod", "score", "--model", "none", "--file",
         tmp_path / "lines.txt"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("command", [["--help"], ["policy", "show"], ["model", "list", "--json"]])
def test_a_full_disk_is_told(command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        told = subprocess.run(
            [sys.executable, "-m", "edgemod", *command],
            stdout=full, stderr=subprocess.PIPE, cwd=ROOT, check=False,
        )  # fmt: skip
    assert told.returncode == 1
    assert told.stderr == b"edgemod: the output cannot be written: No space left on device\n"


def test_closed_outputs_and_old_locales_are_no_mistake_of_edgemod(tmp_path: Path) -> None:
    (tmp_path / "\u0142.csv").write_text("text\nhello\n")
    python = f"{sys.executable} -m edgemod"
    for command, closed in (("score --model none x", ">&-"), ("inspect", "<&- 2>&-")):
        file = f"{tmp_path}/*.csv" if command == "inspect" else ""
        told = subprocess.run(["bash", "-c", f"{python} {command} {file} {closed}"], cwd=ROOT,
                              capture_output=True, check=False)  # fmt: skip
        assert (told.returncode, told.stderr) == (0, b"")
    told = subprocess.run(
        ["bash", "-c", f"PYTHONIOENCODING=latin-1 {python} inspect {tmp_path}/*.csv"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, b"")
    assert b"\\u0142.csv: csv, 11" in told.stdout


def test_a_limit_on_the_size_of_files_is_told(tmp_path: Path) -> None:
    command = f"ulimit -f 0; exec {sys.executable} -m edgemod policy show > {tmp_path}/out"
    told = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert told.returncode == 1
    assert told.stderr == b"edgemod: the output cannot be written: File too large\n"


def test_an_interrupt_while_modules_are_imported(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    told = subprocess.run(
        [sys.executable, "-m", "edgemod", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (130, b"edgemod: interrupted\n")
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert shipped == {"edgemod": "edgemod.__main__:main"}


def test_score_reads_stdin_and_files(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one line\nanother line\n")
    from_file = run("score", "--file", tmp_path / "lines.txt")
    from_stdin = run("score", stdin="one line\nanother line\n")
    assert from_file.returncode == from_stdin.returncode == 0
    assert from_file.stdout == from_stdin.stdout
    assert len(from_file.stdout.splitlines()) == 2


def test_score_of_nothing_says_so() -> None:
    told = run("score", "--model", "none", stdin="")
    assert (told.returncode, told.stdout) == (0, "")
    assert told.stderr == "there was no text: nothing was scored\n"


@pytest.mark.parametrize("stage", ["filter", "model", "cascade"])
def test_score_a_file(tmp_path: Path, stage: str) -> None:
    table = pa.table(
        {
            "n": list(range(5)),
            "text": pa.array(
                ["hello there", None, "hello there", "you are an idiot", ""]
            ).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    told = run(
        "score",
        tmp_path / "in.parquet",
        "--text-column",
        "text",
        "-o",
        tmp_path / "out.parquet",
        "--stage",
        stage,
    )
    assert told.returncode == 0, told.stderr
    got = pq.read_table(tmp_path / "out.parquet")
    assert got.column_names == ["n", "text", *(f"p_{name}" for name in OUTPUTS)]
    assert got["n"].to_pylist() == list(range(5))
    assert got["text"].to_pylist() == table["text"].to_pylist()
    p = got["p_any"].to_pylist()
    assert p[1] is None
    assert p[4] is None
    assert p[0] == p[2]
    assert 0 <= p[0] < p[3] <= 1


def test_score_refuses_to_double_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "p_any": [1.0]}), tmp_path / "in.parquet")
    told = run("score", tmp_path / "in.parquet", "-o", tmp_path / "out.parquet")
    assert told.returncode == 1
    assert "already has columns p_any" in told.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "in.parquet"]


def test_inspect(dump: Path) -> None:
    told = run("inspect", dump)
    assert told.returncode == 0, told.stderr
    assert "edgemod triage" in told.stdout
    assert json.loads(run("inspect", dump, "--json").stdout)["rows"] == 600


def test_policy_commands(tmp_path: Path) -> None:
    assert "threat_violence" in run("policy", "show").stdout
    assert json.loads(run("policy", "show", "--json").stdout)["languages"] == ["en"]
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\nlanguges = ["en"]\n')
    told = run("policy", "check", bad)
    assert told.returncode == 1
    assert "line 2" in told.stderr
    assert "languages" in told.stderr
    assert run("policy", "check", ROOT / "edgemod/policies/default.toml").returncode == 0


def test_model_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMOD_HOME", str(tmp_path / "home"))
    assert "default" in run("model", "list").stdout
    assert run("model", "verify").returncode == 0
    assert run("model", "verify", "nonesuch").returncode == 2
    fake = tmp_path / "fake.gguf"
    for content, said in (b"GIF89a not a model", "GGUF"), (b"GGUF\3\0\0\0cut", "cannot load"):
        fake.write_bytes(content)
        told = run("model", "add", fake, "--name", "fake")
        assert told.returncode == 1
        assert said in told.stderr
    told = run("model", "add", fake, "--name", "fake", "--template", "nonesuch")
    assert told.returncode == 2
    assert "yes-no" in told.stderr
    encoder = ROOT / "quantized" / "encoder.gguf"
    told = run("model", "add", encoder, "--name", "fake", "--replace")
    assert told.returncode == 1
    assert "this is an encoder" in told.stderr
    assert "add an instruction-tuned model" in told.stderr
    assert "fake" not in run("model", "list").stdout


def test_doctor() -> None:
    told = run("doctor", "--json")
    findings = {f["name"]: f for f in json.loads(told.stdout)}
    assert told.returncode == 0, told.stdout
    assert findings["offline"]["ok"]
    assert "0 attempts" in findings["offline"]["detail"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    told = run("completion", shell)
    assert told.returncode == 0
    assert "_EDGEMOD_COMPLETE" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["triage"], 2, "Missing argument"),
        (["triage", "x.parquet"], 2, "Missing option"),
        (["triage", "nothing.parquet", "-o", "nowhere"], 1, "nothing.parquet"),
        (["score", "a", "b", "-o", "c"], 2, "exactly one input file"),
        (["score", "--text-column", "a", "b"], 2, "goes with a Parquet file"),
        (["score", "README.md"], 2, "names a file"),
        (["score", "-"], 2, "names a file"),
        (["nonesuch"], 2, "No such command"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, said: str) -> None:
    told = run(*arguments)
    assert told.returncode == code, told.stderr
    assert said in told.stderr
    assert "Traceback" not in told.stderr


def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mred.parquet"
    assert run("inspect", path).returncode == 1
    assert "\x1b" not in run("inspect", path).stderr
    pq.write_table(pa.table({"text": ["a"], "\x1b[32mgreen": ["b"]}), path)
    told = run("inspect", path)
    assert told.returncode == 0
    assert "\x1b" not in told.stdout
    assert "green" in told.stdout


def test_without_ray_the_engine_ray_says_how_to_install_it(tmp_path: Path) -> None:
    dump = tmp_path / "dump.parquet"
    pq.write_table(pa.table({"text": ["hello"]}), dump)
    code = (
        "import sys; sys.modules['ray'] = None; from edgemod.__main__ import main\n"
        f"sys.argv = ['edgemod', 'triage', {str(dump)!r}, '-o', 'out', '--engine', 'ray']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'edgemod[ray]'" in done.stderr
    assert not (tmp_path / "out").exists()
