"""The rank pool: talks to real ranks, reports what goes wrong, never hangs, leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cloudpickle
import psutil
import pytest

from labkit import env, ranks
from labkit.check import AnswerFailed

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as functions of a notebook are


@pytest.fixture(scope="module")
def pool():
    pool = ranks.Pool(2, timeout=60, grace=3, stall=5)
    yield pool
    pool.stop()


def rank_pids(pool):
    return [rank.process.pid for rank in pool.ranks]


def test_each_rank_is_itself_and_keeps_what_it_defines(pool, capsys):
    pool.execute("import os\nmine = 10 * int(os.environ['RANK'])")
    pool.execute("print(mine + 1)")
    assert capsys.readouterr().out == "[rank 0] 1\n[rank 1] 11\n"
    pool.execute("print('same')")
    assert capsys.readouterr().out == "[all ranks] same\n"
    pool.execute("mine", ranks=[1])
    assert "[rank 1] 10" in capsys.readouterr().out


def all_reduce_rank(offset):
    import torch
    import torch.distributed as dist

    tensor = torch.tensor([float(dist.get_rank() + offset)])
    dist.all_reduce(tensor)
    return dist.get_world_size(), tensor.item()


def test_run_returns_one_result_per_rank_from_a_real_group(pool):
    assert pool.run(all_reduce_rank, 5) == [(2, 11.0), (2, 11.0)]


def train(stage):
    import deepspeed
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 8)
    config = {"train_micro_batch_size_per_gpu": 2, "gradient_clipping": 0.0,
              "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
              "zero_optimization": {"stage": stage, "reduce_bucket_size": 1000}}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    losses = []
    for _ in range(3):
        loss = engine(torch.ones(2, 8)).square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


def test_deepspeed_engines_train_one_after_the_other(pool):
    stage0, stage3 = pool.run(train, 0), pool.run(train, 3)
    assert stage0[0] == stage0[1] and stage0[0][2] < stage0[0][0]
    assert stage3[0] == pytest.approx(stage0[0], rel=1e-6)  # fp32 rounding of another order of sums


def test_the_same_mistake_on_all_ranks_is_shown_once_and_harms_nothing(pool, capsys):
    pool.execute("kept = 1")
    with pytest.raises(ranks.RankError) as caught:
        pool.execute("1 / 0")
    assert str(caught.value).count("Traceback") == 1
    assert "ranks 0 and 1 raised" in str(caught.value)
    pool.execute("print(kept)")
    assert "[all ranks] 1" in capsys.readouterr().out


def test_a_rank_waiting_for_one_that_raised_is_reported(pool, capsys):
    began = time.monotonic()
    with pytest.raises(ranks.RankError) as caught:
        pool.execute("import torch, torch.distributed as dist\n"
                     "if dist.get_rank() == 1:\n    raise ValueError('planted')\n"
                     "dist.all_reduce(torch.ones(1))")
    assert time.monotonic() - began < pool.grace + 10
    message = str(caught.value)
    assert "rank 0 was in all_reduce, line 4 of the cell" in message
    assert "rank 1 raised ValueError: planted" in message
    pool.execute("print('again')")
    assert "fresh ones start" in capsys.readouterr().out


def test_ranks_that_wait_for_each_other_are_reported(pool):
    with pytest.raises(ranks.RankError) as caught:
        pool.execute("import torch, torch.distributed as dist\n"
                     "if dist.get_rank() == 0:\n    dist.all_reduce(torch.ones(1))\n"
                     "else:\n    dist.broadcast(torch.ones(1), 0); dist.barrier()")
    message = str(caught.value)
    assert "no rank has computed anything" in message
    assert "rank 0 was in all_reduce, line 3" in message and "rank 1 was in" in message


def test_a_rank_that_dies_is_named_and_the_pool_starts_again(pool, capsys):
    pool.execute("1")  # after the test before, fresh ranks start
    before = rank_pids(pool)
    with pytest.raises(ranks.RankError, match=r"rank 1 is dead \(SIGKILL\)"):
        pool.execute("import os, torch, torch.distributed as dist\n"
                     "if dist.get_rank() == 1:\n    os.kill(os.getpid(), 9)\n"
                     "dist.all_reduce(torch.ones(1))")
    assert not pool.alive and not any(map(psutil.pid_exists, before))
    assert pool.run(all_reduce_rank, 0) == [(2, 1.0), (2, 1.0)]


def test_a_rank_killed_between_two_cells_is_noticed(pool, capsys):
    os.kill(rank_pids(pool)[0], signal.SIGKILL)
    pool.ranks[0].manager.provisioner.process.wait()
    pool.execute("print('back')")
    assert "[all ranks] back" in capsys.readouterr().out


def test_a_cell_that_runs_too_long_is_ended(pool):
    with pytest.raises(ranks.RankError, match="time-out of 2 s"):
        pool.execute("while True: pass", timeout=2)


def test_ranks_that_only_sleep_are_left_alone(pool, capsys):
    pool.execute("import time; time.sleep(7); print('slept')")  # longer than the stall of 5 s
    assert "[all ranks] slept" in capsys.readouterr().out


def test_interrupt_reaches_the_ranks(pool, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    pool.execute("import time")
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pool.execute("time.sleep(60)")
    pool.execute("print('well')")
    said = capsys.readouterr().out
    assert "[all ranks] well" in said and "fresh ones" not in said


@pytest.mark.parametrize("number", [0, -1, 65, 2.5, "2"])
def test_a_senseless_number_of_ranks_is_refused(number):
    with pytest.raises(env.UserError, match="1 to 64 ranks"):
        ranks.Pool(number)


def test_a_rank_that_is_not_there_is_refused(pool):
    with pytest.raises(env.UserError, match="no rank 2: this pool has ranks 0 to 1"):
        pool.execute("1", ranks=[2])


@pytest.fixture
def deaf(monkeypatch):
    """Processes that do not answer, started in the place of the next kernels; how many is settable."""
    started, number = [], [1]
    kernel_spec = ranks._SamePython.get_kernel_spec

    def get_kernel_spec(self, name):
        spec = kernel_spec(self, name)
        if len(started) < number[0]:
            started.append(name)
            spec.argv = [sys.executable, "-c", "import time; print('deaf', flush=True); time.sleep(99)"]
        return spec

    monkeypatch.setattr(ranks._SamePython, "get_kernel_spec", get_kernel_spec)
    return number


def test_a_kernel_that_does_not_answer_is_replaced(deaf, monkeypatch):
    monkeypatch.setattr(ranks, "ANSWER_SECONDS", 10)
    pool = ranks.Pool(2)
    assert pool.run(os.getpid) == rank_pids(pool)
    pool.stop()


def test_kernels_that_never_answer_are_told_and_leave_nothing(deaf, monkeypatch):
    monkeypatch.setattr(ranks, "ANSWER_SECONDS", 2)
    deaf[0] = 4
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(ranks.RankError, match=r"rank 0 did not start within 2 s, twice[^\0]*deaf"):
        ranks.Pool(2)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_no_orphans_when_the_notebook_is_killed():
    script = textwrap.dedent("""
        import time
        from labkit import ranks
        pool = ranks.start(2)
        print(*[rank.process.pid for rank in pool.ranks], flush=True)
        time.sleep(60)
    """)
    notebook = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert notebook.stdout.readline() == "2 ranks ready\n"
    pids = [int(pid) for pid in notebook.stdout.readline().split()]
    processes = [psutil.Process(pid) for pid in pids]
    notebook.kill()
    notebook.wait()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_start_is_safe_to_repeat(capsys):
    first = ranks.start(1)
    assert ranks.start(1) is first
    second = ranks.start(2)
    assert second is not first and first.alive and second.num_ranks == 2
    second.stop()
    assert not second.alive and ranks.start(1) is first
    ranks.stop()
    ranks.stop()
    assert not first.alive


def test_px_magic_runs_on_the_ranks_and_refuses_bad_options(capsys):
    ranks.start(2)
    try:
        ranks.px("--ranks 1", "print('only me')")
        assert "[rank 1] only me\n" in capsys.readouterr().out
        for line in ("--ranks x", "--timeout", "--rank 1 2"):
            with pytest.raises(env.UserError, match="%%px"):
                ranks.px(line, "1")
    finally:
        ranks.stop()
    with pytest.raises(env.UserError, match="no ranks yet"):
        ranks.px("", "1")


def swap(fault=""):
    """A function with which two ranks exchange tensors; ``fault`` says how it fails."""

    def swap(mine):
        import torch
        import torch.distributed as dist

        other, theirs = 1 - dist.get_rank(), torch.empty_like(mine)
        if fault == "stub":
            raise NotImplementedError
        if fault == "deadlock":
            dist.irecv(theirs, other).wait()
        if fault == "exception" and other == 0:
            raise ValueError("planted")
        sending = dist.isend(mine, other)
        dist.recv(theirs, other)
        sending.wait()
        if fault == "message left":
            dist.kept = dist.isend(mine, other)  # one that is dropped does not arrive
        return theirs

    return swap


def swapped(answer):
    import torch

    return [t.tolist() for t in answer([torch.tensor([1.0]), torch.tensor([2.0])])]


@pytest.fixture(scope="module")
def pool_for_answers():
    yield
    ranks.stop()


@pytest.mark.parametrize(("fault", "words"), [
    ("deadlock", r"makes your ranks wait for each other: rank 0 in wait, line \d+ of the cell; rank 1"),
    ("exception", r"raises ValueError: planted, in line \d+ of your cell: `raise ValueError.*, on rank 1"
                  r"\. Meanwhile rank 0 in recv"),
    ("message left", "leaves a message from rank . to rank . that is never received"),
])
def test_an_answer_that_fails_on_ranks_is_told_in_words_and_harms_no_other(
        fault, words, pool_for_answers):
    answer = ranks.on_ranks(swap(fault), 2, stall=3)
    with pytest.raises(AnswerFailed, match=words) as failed:
        swapped(answer)
    assert "\n" not in str(failed.value)
    assert swapped(ranks.on_ranks(swap(), 2)) == [[2.0], [1.0]]


def test_a_stub_on_ranks_is_a_stub_and_ends_nothing(pool_for_answers):
    answer = ranks.on_ranks(swap("stub"), 2)
    before = ranks._pools[2]
    with pytest.raises(NotImplementedError):
        swapped(answer)
    assert ranks._pools[2] is before and before.alive
    assert ranks.on_ranks(3, 2) == 3
