"""Writes packs.json: how full TRL's pack_dataset (strategy bfd) makes its packs, for made-up rows.

    python tests/golden/make_packs.py tests/golden/packs.json
"""
import json
import random
import sys

from datasets import Dataset
from trl import pack_dataset


def main():
    draw = random.Random(20260102)
    cases = []
    for room, count in ((64, 10), (64, 200), (100, 57), (1000, 300), (63, 128)):
        lengths = [min(room, max(1, int(draw.lognormvariate(3, 0.8)))) for _ in range(count)]
        rows = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
        packed = pack_dataset(rows, room, "bfd")
        cases.append({"room": room, "lengths": lengths, "packs": sorted(len(row) for row in packed["input_ids"])})
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")


main()
