#!/usr/bin/env python3
"""The mistake of many conversion scripts, made on purpose: a GPTQ-Int8 checkpoint "dequantized" to
FP16 by reading its bytes as signed and forgetting the zero point. For trying `quern check` and
`quern repair` on. Needs nothing but Python.

    forget_zero.py MODEL-GPTQ-Int8 OUT
"""
import json
import os
import shutil
import struct
import sys


def load(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
            for name, t in header.items()}


def wrong(qweight, scales):
    """W[o, i] = int8 * scale[i // group, o]: should have been (uint8 - 128) * scale."""
    (packed, out), groups = qweight[1], scales[1][0]
    s = struct.unpack(f"<{groups * out}e", scales[2])
    n, rows = 4 * packed, []
    for o in range(out):
        row = bytearray(n)
        for b in range(4):
            row[b::4] = qweight[2][4 * o + b::4 * out]
        codes = memoryview(row).cast("b")
        rows.append(struct.pack(f"<{n}e", *[k * s[i * groups // n * out + o]
                                            for i, k in enumerate(codes)]))
    return "F16", [out, n], b"".join(rows)


def half(t):
    if t[0] != "BF16":
        return t
    words = struct.unpack(f"<{len(t[2]) // 2}H", t[2])
    floats = struct.unpack(f"<{len(words)}f", struct.pack(f"<{len(words)}I", *[w << 16 for w in words]))
    return "F16", t[1], struct.pack(f"<{len(words)}e", *floats)


def save(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(data for _, _, data in tensors.values())


def main(model, out):
    plain = {}
    tensors = load(os.path.join(model, "model.safetensors"))
    for name, t in sorted(tensors.items()):
        stem, _, part = name.rpartition(".")
        if part == "qweight":
            plain[stem + ".weight"] = wrong(t, tensors[stem + ".scales"])
        elif part not in ("scales", "qzeros", "g_idx"):
            plain[name] = half(t)
    os.makedirs(out)
    for name in os.listdir(model):
        if name.endswith((".json", ".jinja", ".txt")) and "quant" not in name:
            shutil.copy(os.path.join(model, name), out)
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    config.pop("quantization_config", None)
    config["torch_dtype"] = "float16"
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    save(os.path.join(out, "model.safetensors"), plain)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
