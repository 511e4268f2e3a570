"""Train the bundled zoo models on sequential Fashion-MNIST (14 x 14 pixels, 196 steps).

Reads the four original IDX files (Debian package ``dataset-fashion-mnist``) and writes, into the
package's ``zoo/data`` folder, the weights (safetensors), the data sample (npz) and a record of the
run (json). The last 5,000 training images are held out to choose nothing but to watch; the test
images are touched once, at the end.

    python benchmarks/train_fashion_mnist.py fashion-mnist-s4d --epochs 14
    python benchmarks/train_fashion_mnist.py fashion-mnist-s4d-gelu --epochs 4
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from ssmred.networks.deep import DeepS4D

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).parents[1] / "ssmred" / "zoo" / "data"
CALIBRATION = 512
HELD_OUT = 5_000

RECIPES = {
    "fashion-mnist-s4d": {"channels": 64, "states": 64, "layers": 4, "dropout": 0.1, "gated": True},
    "fashion-mnist-s4d-gelu": {
        "channels": 32,
        "states": 64,
        "layers": 2,
        "dropout": 0.0,
        "gated": False,
    },
}


def read_images(part: str) -> np.ndarray:
    """Return the images of one part, averaged over 2 x 2 pixels, as (n, 196) uint8."""
    with gzip.open(SOURCE / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 14, 2, 14, 2)
    return np.round(pixels.mean(axis=(2, 4))).astype(np.uint8).reshape(-1, 196)


def read_labels(part: str) -> np.ndarray:
    """Return the labels of one part, (n,) uint8."""
    with gzip.open(SOURCE / f"{part}-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=8)


def as_sequences(pixels: np.ndarray) -> torch.Tensor:
    """Scale pixels to [-1, 1] sequences, (n, 196, 1) float32."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1.0).unsqueeze(-1)


def parameter_groups(model: nn.Module, rate: float) -> list[dict]:
    """Return optimiser groups: state-space parameters slower and without weight decay."""
    slow = [p for name, p in model.named_parameters() if ".kernel." in name and name[-2:] != ".C"]
    known = {id(p) for p in slow}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [
        {"params": rest, "lr": rate, "weight_decay": 0.01},
        {"params": slow, "lr": min(rate, 1e-3), "weight_decay": 0.0},
    ]


@torch.no_grad()
def accuracy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of right classes in percent."""
    model.eval()
    right = sum(
        int((model(x).argmax(-1) == y).sum())
        for x, y in zip(inputs.split(500), labels.split(500), strict=True)
    )
    return 100.0 * right / len(labels)


def main() -> None:
    """Train one recipe and write its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    pixels, labels = read_images("train"), read_labels("train")
    inputs, targets = as_sequences(pixels), torch.from_numpy(labels.astype(np.int64))
    train_x, train_y = inputs[:-HELD_OUT], targets[:-HELD_OUT]
    watch_x, watch_y = inputs[-HELD_OUT:], targets[-HELD_OUT:]

    recipe = RECIPES[options.name]
    model = DeepS4D(1, 10, **recipe)
    optimiser = torch.optim.AdamW(parameter_groups(model, options.rate))
    steps = options.epochs * (len(train_x) // options.batch)
    warm_up = steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda k: min((k + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * k / steps))),
    )
    history = []
    start = time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        total = 0.0
        for index in torch.randperm(len(train_x))[: steps // options.epochs * options.batch].split(
            options.batch
        ):
            x = train_x[index]
            flip = torch.rand(len(x), 1, 1) < 0.5  # mirror left-right: a garment stays a garment
            x = torch.where(flip, x.view(-1, 14, 14).flip(-1).reshape(x.shape), x)
            loss = functional.cross_entropy(model(x), train_y[index], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        history.append(
            {
                "epoch": epoch + 1,
                "loss": total * options.epochs / steps,
                "held_out_accuracy": accuracy(model, watch_x, watch_y),
            }
        )
        print(json.dumps(history[-1] | {"seconds": time.perf_counter() - start}), flush=True)

    test_pixels, test_labels = read_images("t10k"), read_labels("t10k")
    score = accuracy(
        model, as_sequences(test_pixels), torch.from_numpy(test_labels.astype(np.int64))
    )
    TARGET.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        TARGET / f"{options.name}.safetensors",
    )
    sample = np.random.default_rng(options.seed).choice(len(train_x), CALIBRATION, replace=False)
    np.savez_compressed(
        TARGET / "fashion-mnist.npz",
        calibration_pixels=pixels[sample],
        calibration_labels=labels[sample],
        test_pixels=test_pixels,
        test_labels=test_labels,
    )
    record = {
        "name": options.name,
        "recipe": recipe,
        "options": vars(options),
        "test_accuracy": score,
        "seconds": round(time.perf_counter() - start),
        "torch": torch.__version__,
        "history": history,
    }
    (TARGET / f"{options.name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{options.name}: {score:.2f} % of the 10,000 test images")


if __name__ == "__main__":
    main()
