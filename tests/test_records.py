"""Records survive what happens to a run, and damage is told, not swallowed."""

import json

import pytest

from labkit.env import UserError
from labkit.records import Recorder, RunInfo, read_rank, read_run


def write_run(folder, ranks=2, steps=3):
    info = RunInfo(lab="lab01_first_run", command=["deepspeed"], ranks=ranks, started="2026-01-01T00:00:00")
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(info.model_dump_json())
    for rank in range(ranks):
        with Recorder(folder, total_steps=steps, rank=rank) as record:
            for step in range(steps):
                record.step(step, loss=step + rank, tokens=10)
            record.metric("states", parameters=4)
    return folder


def test_what_is_written_is_read(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert run.finished and run.losses == [0.5, 1.5, 2.5]
    assert run.metric("states", rank=1) == {"parameters": 4}
    assert run.tokens_per_second > 0
    with pytest.raises(KeyError, match="no metric 'speed'"):
        run.metric("speed")


def test_nan_stays_nan(tmp_path):
    with Recorder(tmp_path, total_steps=1, rank=0) as record:
        record.step(0, loss=float("nan"))
    loss = read_rank(tmp_path / "rank0.jsonl")[1].values["loss"]
    assert loss != loss


def test_an_exception_is_recorded_with_its_traceback_and_goes_on(tmp_path):
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path, total_steps=1, rank=0):
        1 / 0  # noqa: B018
    last = read_rank(tmp_path / "rank0.jsonl")[-1]
    assert last.event == "error" and last.values["kind"] == "ZeroDivisionError"
    assert "1 / 0" in last.values["traceback"]


def test_a_torn_last_line_is_left_out(tmp_path):
    path = write_run(tmp_path / "run") / "rank1.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    run = read_run(path.parent)
    assert not run.finished and len(run.ranks[1]) == 5 and len(run.losses) == 3


@pytest.mark.parametrize("damage", ["{not json", '{"event": "dance", "rank": 0, "seconds": 1}', "[]",
                                    '{"event": "step", "rank": -1, "seconds": 1}', ""])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = write_run(tmp_path / "run") / "rank0.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = damage
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"rank0\.jsonl, line 3 is not a record"):
        read_run(path.parent)


def test_no_run_or_a_damaged_head_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"lab": 1}))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        read_run(tmp_path)


def test_an_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write records to"):
        Recorder(tmp_path / "file" / "run", total_steps=1, rank=0)


def test_a_full_disk_is_told_and_earlier_records_stay(tmp_path):
    with pytest.raises(UserError, match="disk full while writing"), \
            Recorder(tmp_path, total_steps=9, rank=0) as record:
        record.step(0, loss=1.0)
        record._file.close()
        record._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the recorder closes it
        record.step(1, loss=1.0)
    assert [r.event for r in read_rank(tmp_path / "rank0.jsonl")] == ["start", "step"]
