#!/usr/bin/env python3
"""The trainer's permutation, worked out from its description in worker/trainer/batcher.h and kernels/random.h.

    python tests/golden/make_permutation.py       prints the permutation that test_batcher.c expects
"""
MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def mix(value):
    value = (value + 0x9E3779B97F4A7C15) & MASK64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK64
    return value ^ value >> 31


def philox(counter, key):
    c, k = list(counter), [key & MASK32, key >> 32]
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [high >> 32 ^ c[1] ^ k[0], high & MASK32, low >> 32 ^ c[3] ^ k[1], low & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return c


def permutation(seed, stream, epoch, count):
    key = mix(mix(seed) ^ MASK32)
    order = list(range(count))
    for i in range(count, 1, -1):
        word = philox((i - 1, epoch, 0, stream), key)
        other = ((word[1] << 32 | word[0]) * i) >> 64
        order[i - 1], order[other] = order[other], order[i - 1]
    return order


if __name__ == "__main__":
    # Random123's known answer for Philox4x32-10 on zeros.
    assert philox((0, 0, 0, 0), 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    print(permutation(42, 1, 0, 5))
