import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_dagster.errors import LeaseError, ModelError, TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build
from distill_dagster.storage.lease import lease
from distill_dagster.training import launch as launching
from distill_dagster.training import process
from distill_dagster.training.launch import launch

RECIPE = {"steps": 12, "batch_tokens": 512, "learning_rate": 3e-3, "checkpoint_every": 4, "log_every": 2}


@pytest.fixture
def task(tokenizer, chats, tmp_path: Path) -> dict:
    rows = [{"origin": "gold", "task": "turn", "split": "train", "messages": from_chat(c.messages)} for c in chats]
    pq.write_table(build("example", rows), tmp_path / "examples.parquet")
    return {
        "examples": str(tmp_path / "examples.parquet"),
        "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
        "recipe": RECIPE,
        "out": str(tmp_path / "out"),
        "name": "finance/student_checkpoint",
    }


def pretend(code: str):
    """In place of Popen: a child that only runs this code, with its work folder in `work`."""

    def start(argv, **options):
        head = "import json, os, sys, time\nwork = os.path.dirname(sys.argv[1])\n"
        return subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(code), argv[-1]], **options)

    return start


# --- the parent, with a child that only pretends ------------------------------------------------------------------

WORKS = """
    open(work + '/new', 'w').close()
    os.replace(work + '/new', work + '/metrics.jsonl')
    with open(work + '/metrics.jsonl', 'w') as file:
        for step in (1, 2):
            print(json.dumps({'step': step, 'loss': 1 / step}), file=file, flush=True)
            time.sleep(0.3)
    result = {'ok': True, 'summary': {'steps': 2, 'said': os.environ['SAID']}, 'attempt': os.environ['DISTILL_ATTEMPT']}
    json.dump(result, open(work + '/result.json', 'w'))
"""


def test_progress_and_summary_come_back(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 99, "loss": 9}\n')
    seen: list[tuple] = []
    start = pretend(textwrap.dedent(WORKS))
    summary = launch(
        {"recipe": {"steps": 2}},
        tmp_path,
        env={"SAID": "hello"},
        progress=lambda *row: seen.append(row),
        start=start,
    )
    assert summary == {"steps": 2, "said": "hello"}
    assert seen == [(1, 2, 1.0), (2, 2, 0.5)]
    assert json.loads((tmp_path / "task.json").read_text())["work"] == str(tmp_path)


def test_a_child_that_dies_leaves_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("an older run\n")
    (tmp_path / "result.json").write_text(json.dumps({"ok": True, "summary": {}, "attempt": "an older one"}))
    with pytest.raises(TrainingError, match="exit status 7.*left no result. out of luck") as caught:
        launch({"recipe": {}, "name": "finance/x"}, tmp_path, start=pretend("print('out of luck'); sys.exit(7)"))
    assert caught.value.place == "finance/x" and "older" not in caught.value.reason
    with pytest.raises(TrainingError, match="signal SIGKILL.*out of memory: lower training.batch_tokens"):
        launch({"recipe": {}}, tmp_path, start=pretend("os.kill(os.getpid(), 9)"))


def test_errors_keep_their_class(tmp_path: Path) -> None:
    code = """
        result = {'ok': False, 'kind': 'ModelError', 'place': 'here', 'reason': 'why.', 'next_step': 'Do.'}
        json.dump({**result, 'attempt': os.environ['DISTILL_ATTEMPT']}, open(work + '/result.json', 'w'))
    """
    with pytest.raises(ModelError, match="here: why. Do."):
        launch({"recipe": {}}, tmp_path, start=pretend(code))
    with pytest.raises(TrainingError, match="here"):
        launch({"recipe": {}}, tmp_path, start=pretend(code.replace("ModelError", "os")))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_an_exception_in_the_parent_kills_the_whole_group(tmp_path: Path) -> None:
    code = """
        import signal, subprocess
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        helper = subprocess.Popen(['sleep', '60'])
        open(work + '/pids', 'w').write(f'{os.getpid()} {helper.pid}')
        open(work + '/metrics.jsonl', 'w').write('{"step": 1, "loss": 1.0}\\n')
        time.sleep(60)
    """

    def stop(*_) -> None:
        raise KeyboardInterrupt

    launching_patience, launching.PATIENCE = launching.PATIENCE, 0.3
    try:
        with pytest.raises(KeyboardInterrupt):
            launch({"recipe": {}}, tmp_path, progress=stop, start=pretend(code))
    finally:
        launching.PATIENCE = launching_patience
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


PARENT = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whoever started the tests may have it ignored
from distill_dagster.training.launch import launch
launch({{"recipe": {{}}}}, {work!r}, start=lambda argv, **o: subprocess.Popen([sys.executable, "-c", {child!r}], **o))
"""
CHILD = """
import os, time
from distill_dagster.training.process import watch
watch()
open({pid!r} + ".tmp", "w").write(str(os.getpid()))
os.rename({pid!r} + ".tmp", {pid!r})
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_does_not_outlive_its_parent(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    root = str(Path(process.__file__).parents[2])
    code = PARENT.format(work=str(tmp_path / "work"), child=CHILD.format(pid=str(pid)))
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root})
    deadline = time.monotonic() + 120  # a busy machine starves whatever starts
    while not pid.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid.read_text())
    assert alive(child)
    parent.send_signal(number)
    assert parent.wait(120) == (-9 if number == signal.SIGKILL else 143)
    deadline = time.monotonic() + 60
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_a_closed_standard_input_ends_the_child() -> None:
    code = "import time\nfrom distill_dagster.training.process import watch\nwatch()\nprint('up', flush=True)"
    code += "\ntime.sleep(60)"
    root = str(Path(process.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        child.stdin.write(b"still here\n")
        child.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.stdin.close()
        assert child.wait(5) == process.ORPHANED


@pytest.mark.parametrize(("rank", "messages"), [("0", 1), ("1", 0)])
def test_only_rank_0_reports_to_dagster(tmp_path: Path, rank: str, messages: int) -> None:
    from dagster_pipes import encode_param

    root = str(Path(process.__file__).parents[2])
    context = dict.fromkeys(
        ("asset_keys", "code_version_by_asset_key", "provenance_by_asset_key", "partition_key", "partition_key_range")
    )
    context |= {"partition_time_window": None, "run_id": "r", "job_name": None, "retry_number": 0, "extras": {}}
    (tmp_path / "messages").touch()
    code = "from distill_dagster.training.process import _reporting\nwith _reporting() as report:\n    "
    code += "report and report(3, 9, 0.25)"
    env = {
        "PYTHONPATH": root,
        "RANK": rank,
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": context}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages")}),
    }
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=True)
    sent = [json.loads(line) for line in (tmp_path / "messages").read_text().splitlines()]
    told = [entry["params"]["payload"] for entry in sent if entry["method"] == "report_custom_message"]
    assert told == [{"step": 3, "steps": 9, "loss": 0.25}] * messages


def test_the_parent_needs_no_torch() -> None:
    code = "import sys; import distill_dagster.training.launch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- the child, in this process -----------------------------------------------------------------------------------


@pytest.fixture
def written(task: dict, tmp_path: Path) -> Path:
    (tmp_path / "task.json").write_text(json.dumps({**task, "work": str(tmp_path / "work")}))
    return tmp_path / "task.json"


def result(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "work" / "result.json").read_text())


@pytest.mark.needs_torch
def test_a_task_makes_a_model_folder(task: dict, written: Path, tmp_path: Path, monkeypatch) -> None:
    from distill_dagster.training import folder

    monkeypatch.setenv(process.ATTEMPT, "me")
    assert process.main([str(written)]) == 0
    found = result(tmp_path)
    assert found["ok"] and found["attempt"] == "me"
    assert found["summary"]["steps"] == 12 and found["summary"]["examples"] == 120
    made = folder.digest(folder.check(tmp_path / "out"))
    assert process.main([str(written)]) == 0
    assert folder.digest(tmp_path / "out") == made
    # A trained folder is a base like any other.
    again = {**task, "base": str(tmp_path / "out"), "work": str(tmp_path / "w2"), "out": str(tmp_path / "out2")}
    summary = process.run({**again, "validation": task["examples"]})
    assert summary["validation_loss"] < summary["validation_loss_before"]
    assert folder.digest(tmp_path / "out2") != made


@pytest.mark.needs_torch
def test_long_validation_records_are_left_out_and_counted(task: dict, chats, tmp_path: Path) -> None:
    long = ({"role": "user", "content": "a" * 200}, {"role": "assistant", "content": "b"})

    def validation(*turns) -> str:
        rows = [{"origin": "gold", "task": "turn", "split": "train", "messages": from_chat(said)} for said in turns]
        pq.write_table(build("example", rows), tmp_path / "validation.parquet")
        return str(tmp_path / "validation.parquet")

    given = {**task, "work": str(tmp_path / "work"), "recipe": {**RECIPE, "steps": 2, "max_length": 128}}
    summary = process.run({**given, "validation": validation(chats[0].messages, long)})
    assert summary["validation_dropped_too_long"] == 1
    alone = process.run({**given, "work": str(tmp_path / "two"), "validation": validation(chats[0].messages)})
    assert alone["validation_loss"] == summary["validation_loss"] and "validation_dropped_too_long" not in alone
    with pytest.raises(TrainingError, match=r"all 1 validation records \(D_val\) are longer than max_length 128"):
        process.run({**given, "validation": validation(long)})
    pq.write_table(pq.read_table(tmp_path / "validation.parquet"), task["examples"])
    with pytest.raises(TrainingError, match="more than max_length 128") as caught:
        process.run(given)
    assert "D_T, from which a teacher is fitted" in caught.value.next_step


@pytest.mark.needs_torch
def test_plain_texts(task: dict, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"abc {n} cba" for n in range(50)]}), tmp_path / "texts.parquet")
    del task["examples"]
    summary = process.run({**task, "texts": str(tmp_path / "texts.parquet"), "work": str(tmp_path / "work")})
    assert summary["loss"] < summary["first_loss"] and summary["examples"] == 50


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"base": "/no/such/folder"}, "ModelError", "no such model folder"),
        ({"recipe": {**RECIPE, "max_length": 8}}, "TrainingError", "tokens, more than max_length 8"),
        ({"recipe": {**RECIPE, "max_length": 4096, "batch_tokens": 4096}}, "TrainingError", "1024 tokens"),
        ({"recipe": {**RECIPE, "learning_rate": 1e30, "warmup_steps": 0}}, "TrainingError", "not finite"),
        ({"recipe": {**RECIPE, "objective": {"sff": 1.0}}}, "ConfigError", "sff"),
        ({"examples": "/no/such.parquet"}, "TrainingError", "FileNotFoundError"),
    ],
)
def test_what_goes_wrong_is_told(written: Path, tmp_path: Path, change: dict, kind: str, reason: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").write_text("kept")
    written.write_text(json.dumps({**json.loads(written.read_text()), **change}))
    assert process.main([str(written)]) == 1
    found = result(tmp_path)
    assert (found["ok"], found["kind"]) == (False, kind)
    assert reason in found["reason"] and found["place"] and found["next_step"]
    assert (tmp_path / "out" / "earlier").read_text() == "kept"


def test_a_held_work_folder_is_left_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "task.json").write_text(json.dumps({"work": str(tmp_path / "work")}))
    with lease(tmp_path / "work", "training"):
        (tmp_path / "work" / "result.json").write_text("theirs")
        assert process.main([str(tmp_path / "task.json")]) == process.HELD
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert (tmp_path / "work" / "result.json").read_text() == "theirs"
    assert process.main([]) == 1


# --- both, for real -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_torch
def test_a_killed_child_resumes_and_ends_alike(task: dict, tmp_path: Path) -> None:
    from distill_dagster.training.folder import digest

    seen: list[int] = []
    summary = launch(task, tmp_path / "one", progress=lambda step, steps, loss: seen.append(step))
    assert summary["resumed_from"] == 0 and seen == [1, 2, 4, 6, 8, 10, 12]
    wanted = digest(tmp_path / "out")
    # The points of a checkpoint are 5; this kills the child while the second one is being written.
    with pytest.raises(TrainingError, match="SIGKILL"):
        launch(task, tmp_path / "two", env={"DISTILL_FAULT_AT": "13"})
    assert launch(task, tmp_path / "two")["resumed_from"] in (4, 8)
    assert digest(tmp_path / "out") == wanted


@pytest.mark.slow
@pytest.mark.needs_torch
def test_a_second_child_names_the_first(task: dict, tmp_path: Path) -> None:
    with lease(tmp_path / "work", "training"), pytest.raises(LeaseError, match=f"process {os.getpid()}"):
        launch(task, tmp_path / "work")
