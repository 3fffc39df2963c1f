"""Lab 2's task: scikit-learn's digits, a small network for them, and the order in which it sees them."""

from collections.abc import Iterable, Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from labkit import env

TRAIN = 896  # images to learn from; the other 901 test


def digits() -> tuple[Tensor, Tensor]:
    """1,797 images (n, 1, 8, 8) from −1 to 1 and their labels (n), in one random order."""
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    images, labels = (torch.tensor(t)[order].to(env.device()) for t in load_digits(return_X_y=True))
    return images.float().view(-1, 1, 8, 8) / 8 - 1, labels


def new_net(seed: int) -> nn.Sequential:
    """Smooth activations: at a ReLU's kink a rounding error can become a large one."""
    torch.backends.cudnn.allow_tf32 = False  # else convolutions on a GPU round to 11 bits
    torch.manual_seed(seed)  # every rank and every way starts from the same weights
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2), nn.GELU(),
                         nn.Flatten(), nn.Linear(32 * 3 * 3, 10)).to(env.device())


def batches(batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The images of each global batch, in another order at each pass; an incomplete batch is left."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        i = step % (TRAIN // batch)
        if i == 0:
            order = torch.randperm(TRAIN, generator=generator)
        yield order[i * batch : (i + 1) * batch]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Copies of all of them, end to end."""
    return torch.cat([t.detach().flatten() for t in tensors])


def distance(a: Tensor, b: Tensor, origin: Tensor | float = 0.0) -> float:
    """‖a − b‖ as a share of ‖b − origin‖."""
    return ((a - b).norm() / (b - origin).norm()).item()
