"""Lab 6's backbone: one small GPT-2 that has read all the text that the course's packages bring.

    python labs/lab06_three_tasks/pretrain.py --out runs/backbone --bf16    # as it was shipped: over an hour
    python labs/lab06_three_tasks/pretrain.py --out runs/small --steps 60       # a taste of it: minutes

One process on the CPU. The model learns two things at once: to continue a text (causal attention) and to
fill in hidden tokens (every token sees every other); see `batch`. Its text is what `labkit.splits` lets
through: no test text of any chapter, and nothing that is nearly one.

It says beforehand how long it will take, writes a checkpoint every 100 steps, and goes on from the last one
when it is called again with the same --out. In the end --out holds a folder that transformers can load:
half-precision weights, tokenizer, and record.json, which has the learning curve.
"""

import argparse
import json
import os
import platform
import random
import sys
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

from code_hash import code_hash  # noqa: E402

from labkit import data, splits  # noqa: E402
from labkit.env import UserError  # noqa: E402
from labkit.flags import at_least  # noqa: E402

SHIPPED = LAB / "backbone"
CODE = (LAB / "pretrain.py", Path(splits.__file__))  # what decides the weights
CONTEXT, VOCAB, LAYERS, HEADS, HIDDEN = 256, 6144, 6, 6, 192
SPECIAL = ["<end>", "<pad>", "<mask>", "<user>", "<assistant>"]
BATCH, FILLED = 16, 5  # rows of a batch; so many of them are filled in, the others continued
HIDE = 0.3  # of the tokens in a row that is filled in
RATE_MUON, RATE_ADAM = 6e-3, 2e-3
EVERY = 100  # steps between checkpoints
IGNORED = -100
HELD_OUT = {"Chinese reviews": "chinese-reviews", "Chinese and English strings": "home-assistant",
            "English talk": "conversations-en", "Python's docstrings": "docstring-summaries"}


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCAB` tokens; each digit stands alone, so that numbers keep their places."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", bos_token="<end>",
                                   pad_token="<pad>", mask_token="<mask>", model_max_length=CONTEXT,
                                   additional_special_tokens=["<user>", "<assistant>"])


def make_model() -> GPT2LMHeadModel:
    """The backbone before any training."""
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=1))


def flatten(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """(tokens,): all texts one after the other, `<end>` after each."""
    rows = tokenizer(texts)["input_ids"]
    return torch.tensor([token for row in rows for token in [*row, 0]])


def batch(tokens: Tensor, step: int, rows: int = BATCH,
          filled: int = FILLED) -> tuple[Tensor, Tensor, Tensor]:
    """(inputs, targets, mask) of a step: the same for the same step, whenever it is asked for.

    An epoch cuts the text into windows of `CONTEXT` at an offset of its own. The target of every place is
    the next token, in both kinds of rows, so that one output layer serves both (Charpentier and Samuel 2024):

    - a continued row sees what stands before, and every place has a target;
    - a filled row sees itself whole, but for the share `HIDE` of its tokens: only those are targets.

    inputs, targets: (rows, CONTEXT); mask: (rows, 1, CONTEXT, CONTEXT), 0 where a place may look.
    """
    windows = (len(tokens) - 1) // CONTEXT - 1
    if windows < rows:
        raise UserError(f"{len(tokens)} tokens are too few for batches of {rows} windows of {CONTEXT}")
    an_epoch = windows // rows
    chance = torch.Generator().manual_seed(step // an_epoch)
    offset = int(torch.randint(CONTEXT, (), generator=chance))
    order = torch.randperm(windows, generator=chance)[step % an_epoch * rows:][:rows]
    window = tokens[order[:, None] * CONTEXT + offset + torch.arange(CONTEXT + 1)]
    inputs, targets = window[:, :-1].clone(), window[:, 1:].clone()
    hidden = torch.rand(filled, CONTEXT, generator=torch.Generator().manual_seed(10**6 + step)) < HIDE
    targets[:filled][~hidden] = IGNORED
    inputs[:filled, 1:][hidden[:, :-1]] = SPECIAL.index("<mask>")
    later = torch.full((CONTEXT, CONTEXT), torch.finfo(torch.float32).min).triu(1)
    mask = later.repeat(rows, 1, 1, 1)
    mask[:filled] = 0
    return inputs, targets, mask


def losses(model: GPT2LMHeadModel, tokens: Tensor, step: int, bf16: bool) -> tuple[Tensor, float, float]:
    """(mean loss of all targets, mean of the continued rows, mean of the filled rows), nats a token."""
    inputs, targets, mask = batch(tokens, step)
    wanted = targets != IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        seen = model.transformer(input_ids=inputs, attention_mask=mask).last_hidden_state
        logits = model.lm_head(seen[wanted])  # no logits where nothing is asked
    each = F.cross_entropy(logits.float(), targets[wanted], reduction="none")
    filled = int(wanted[:FILLED].sum())  # these rows come first
    return each.mean(), float(each[filled:].detach().mean()), float(each[:filled].detach().mean())


def make_optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the blocks, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or ".h." not in name]
    return [torch.optim.Muon(matrices, lr=RATE_MUON, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE_ADAM, betas=(0.9, 0.95), weight_decay=0.0)]


def share_of_rate(step: int, steps: int) -> float:
    """Up in 40 steps (or a tenth of them), then straight down to zero."""
    warm = min(40, max(1, steps // 10))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@torch.no_grad()
def bits_a_character(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """Mean bits a character when each text is continued from `<end>`; its first `CONTEXT` tokens."""
    bits = characters = 0.0
    for text in texts:
        row = tokenizer(text, truncation=True, max_length=CONTEXT - 1)["input_ids"]
        logits = model(input_ids=torch.tensor([[0, *row]])).logits[0].float()
        bits += float(F.cross_entropy(logits[:-1], torch.tensor(row), reduction="sum")) / 0.6931471805599453
        characters += len(tokenizer.decode(row))
    return bits / characters


def held_out(count: int = 60) -> dict[str, list[str]]:
    """Texts of the frozen dev sets, by their name in the record."""
    found = {}
    for title, name in HELD_OUT.items():
        texts = [text for item in splits.split(name).dev for text in splits.RULES[name].texts(item) if text]
        found[title] = random.Random(0).sample(texts, count)
    return found


class Pretraining:
    """Does what is missing in the folder."""

    def __init__(self, folder: Path, steps: int, bf16: bool, command: str) -> None:
        self.folder, self.steps, self.bf16 = folder, steps, bf16
        self.checkpoint = folder / "checkpoint.pt"
        self.settings = {"steps": steps, "bf16": bf16, "batch": BATCH, "filled": FILLED, "hidden share": HIDE,
                         "context": CONTEXT, "rates": [RATE_MUON, RATE_ADAM],
                         "corpora": {name: data.card(name).sha256 for name in splits.PRETRAINING}}
        self.record = {"command": command, "settings": self.settings, "code": code_hash(*CODE),
                       "device": f"cpu, {torch.get_num_threads()} thread, {platform.machine()}",
                       "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                                    "transformers": transformers.__version__,
                                    "tokenizers": tokenizers.__version__},
                       "seconds": 0.0, "curve": [], "held out": []}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror}") from None

    def run(self) -> None:
        print("reading the corpora, and leaving out what is like a test text (about a minute) …", flush=True)
        texts = list(splits.pretraining_texts())
        random.Random(0).shuffle(texts)
        tokenizer = make_tokenizer(texts)
        tokens, judged = flatten(tokenizer, texts), held_out()
        self.record |= {"texts": len(texts), "characters": sum(map(len, texts)), "tokens": len(tokens)}
        torch.manual_seed(0)
        model = make_model()
        optimizers = make_optimizers(model)
        done = self.resume(model, optimizers)
        self.announce(model, tokens, done)
        began, recent = time.perf_counter() - self.record["seconds"], []
        for step in tqdm(range(done, self.steps), initial=done, total=self.steps, unit="step",
                         dynamic_ncols=True, mininterval=10 if not sys.stderr.isatty() else 0.5):
            recent.append(self.step(model, optimizers, tokens, step))
            if (step + 1) % EVERY == 0 or step + 1 == self.steps:
                bits = {title: round(bits_a_character(model, tokenizer, some), 4)
                        for title, some in judged.items()}
                means = [round(float(mean), 4) for mean in torch.tensor(recent).mean(0)]
                self.record["curve"].append([step + 1, *means])
                self.record["held out"].append([step + 1, bits])
                self.record["seconds"] = round(time.perf_counter() - began, 1)
                recent = []
                self.save(model, optimizers, step + 1)
                tqdm.write(f"step {step + 1}: loss {means}, bits a character {bits}")
        self.ship(model, tokenizer)

    def step(self, model: GPT2LMHeadModel, optimizers: list[torch.optim.Optimizer], tokens: Tensor,
             step: int) -> tuple[float, float]:
        """One update; (loss of the continued rows, loss of the filled rows)."""
        share = share_of_rate(step, self.steps)
        for optimizer, rate in zip(optimizers, (RATE_MUON, RATE_ADAM), strict=True):
            optimizer.param_groups[0]["lr"] = share * rate
            optimizer.zero_grad()
        loss, continued, filled = losses(model, tokens, step, self.bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        return continued, filled

    def announce(self, model: GPT2LMHeadModel, tokens: Tensor, done: int) -> None:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            losses(model, tokens, 0, self.bf16)[0].backward()
            times.append(time.perf_counter() - start)
        model.zero_grad()
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokens):,} tokens of text; "
              f"steps {done + 1} to {self.steps} of {BATCH * CONTEXT:,} tokens take about "
              f"{min(times) * 1.1 * (self.steps - done) / 60:.0f} minutes; a checkpoint every {EVERY} steps: "
              "if it is stopped, the same command goes on", flush=True)

    def resume(self, model: GPT2LMHeadModel, optimizers: list[torch.optim.Optimizer]) -> int:
        """Steps that the folder's checkpoint has done; 0 without one."""
        if not self.checkpoint.exists():
            return 0
        held = torch.load(self.checkpoint, weights_only=True)
        for key, value in self.settings.items():
            if held["record"]["settings"].get(key) != value:
                raise UserError(f"{self.folder} holds a pre-training with other {key}: choose another --out")
        model.load_state_dict(held["model"])
        for optimizer, state in zip(optimizers, held["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.record = held["record"]
        return held["done"]

    def save(self, model: GPT2LMHeadModel, optimizers: list[torch.optim.Optimizer], done: int) -> None:
        beside = self.checkpoint.with_suffix(".part")
        torch.save({"done": done, "model": model.state_dict(), "record": self.record,
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers]}, beside)
        os.replace(beside, self.checkpoint)

    def ship(self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
        """The folder that transformers loads, in half precision."""
        model.eval().half().save_pretrained(self.folder)
        tokenizer.save_pretrained(self.folder)
        (self.folder / "record.json").write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        self.checkpoint.unlink(missing_ok=True)
        print(f"the backbone is in {self.folder}", flush=True)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("pretrain.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder; an unfinished one is continued")
    p.add_argument("--steps", type=at_least(1), default=4500, help="of 4,096 tokens (default: %(default)s)")
    p.add_argument("--bf16", action="store_true", help="matrix products in bf16: twice as fast where the "
                   "processor has it (avx512_bf16), slow elsewhere")
    p.add_argument("--threads", type=at_least(1), default=1, help="of this process (default: 1)")
    return p


def main(flags: list[str]) -> None:
    args = parser().parse_args(flags)
    torch.set_num_threads(args.threads)
    command = " ".join(["python", "labs/lab06_three_tasks/pretrain.py", *flags])
    Pretraining(args.out, args.steps, args.bf16, command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
