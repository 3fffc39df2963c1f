"""Bytes that autograd saves, on cases small enough to count by hand."""

import subprocess
import sys
import time

import torch
from torch import nn

from labkit import measure


def saved(module: nn.Module, x: torch.Tensor) -> int:
    with measure.activations(module) as counted:
        module(x)
    return counted.bytes


def test_a_linear_layer_saves_its_input_and_not_its_weight():
    assert saved(nn.Linear(8, 16), torch.randn(4, 8)) == 4 * 8 * 4


def test_a_tensor_saved_twice_counts_once():
    class Square(nn.Module):
        def forward(self, x):
            return (x * x).exp()  # saves x twice, and its own result

    assert saved(Square(), torch.randn(10, requires_grad=True)) == 2 * 10 * 4


def test_buffers_do_not_count_and_nothing_is_saved_without_gradients():
    norm = nn.BatchNorm1d(8).eval()
    x = torch.randn(4, 8)
    with torch.no_grad():
        assert saved(norm, x) == 0
    assert saved(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), x) == 2 * 4 * 8 * 4


def test_storages_that_are_freed_meanwhile_are_still_counted():
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(20)])
    assert saved(layers, torch.randn(32, 64)) == 21 * 32 * 64 * 4


def test_the_peak_counts_what_is_alive_at_once():
    x = torch.ones(10)
    with measure.peak() as peak:
        a = x + 1  # 40 bytes
        b = a * 2  # 80 alive
        del a
        c = b[2:].exp_()  # a view, in place: nothing new
        d = c + 1  # 32 more: 72 alive
    assert (peak.bytes, peak.live) == (80, 72)
    del b, c, d
    assert peak.live == 0


def test_the_peak_leaves_out_what_existed_before():
    x = torch.ones(10)
    with measure.peak() as peak:
        x.mul_(2)
        x[:5].add_(1)
    assert peak.bytes == 0


def test_operations_are_counted_in_the_backward_pass_too():
    x = torch.ones(3, 3, requires_grad=True)
    with measure.operations() as calls:
        (x @ x).sum().backward()
    assert calls["mm"] == 3 and calls["sum"] == 1


def test_live_activations_follow_what_autograd_keeps_and_frees():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh())
    with measure.live_activations(model) as live:
        first = model(torch.ones(2, 3)).sum()  # keeps the input (6 numbers) and tanh's result (10)
        assert live.now == live.most == 4 * 16
        second = model(torch.ones(2, 3)).sum()
        assert live.now == 4 * 32
        first.backward()
        assert live.now == 4 * 16
        second.backward()
    assert (live.now, live.most) == (0, 4 * 32)


def test_memory_sees_what_a_child_process_holds():
    held = "import time; kept = bytearray(300_000_000); print(flush=True); time.sleep(60)"
    with measure.memory(every=0.05) as before:
        pass
    with (measure.memory(every=0.05) as seen,
          subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE) as child):
        child.stdout.readline()  # it holds them now
        time.sleep(0.3)
        child.kill()
    assert seen.most - before.most > 250_000_000
