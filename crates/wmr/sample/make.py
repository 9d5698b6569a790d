"""Makes records.core.zst, the core that `wmr demo --core` looks at.

Runs ../demo/records.py with 500 records under Debian's python3.11, has gcore write a core with the
mapped files in it (no Python need be where the core is opened), leaves out the code and the libraries'
constants, which no question needs, and compresses the rest. Wants gdb and zstd; run it as root in
an empty environment, so that nothing of this machine is in the core:

    env -i PATH=/usr/bin:/bin python3 make.py
"""
import os
import shutil
import struct
import subprocess
import tempfile

PYTHON = "/usr/bin/python3.11"
PAGE = 4096
LOW = 0x10000000
HERE = os.path.dirname(os.path.abspath(__file__))


def dump(folder):
    script = os.path.join(folder, "records.py")
    shutil.copy(os.path.join(HERE, "..", "demo", "records.py"), script)
    child = subprocess.Popen(
        # Without randomisation the file comes out the same up to the pid and the clock.
        ["setarch", "-R", PYTHON, "-I", "-S", "records.py", "500"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env={"LANG": "C.UTF-8"},
    )
    pid = int(child.stdout.readline().split()[1])
    # 0x7f: private and shared, anonymous and of files, ELF headers, huge pages (core(5)).
    with open("/proc/%d/coredump_filter" % pid, "w") as f:
        f.write("0x7f")
    subprocess.run(["gcore", "-o", os.path.join(folder, "core"), str(pid)], check=True)
    child.kill()
    child.wait()
    return os.path.join(folder, "core.%d" % pid)


def trim(path):
    """The core without what no question needs, left out as the kernel leaves out segments."""
    data = open(path, "rb").read()
    phoff, = struct.unpack_from("<Q", data, 32)
    phentsize, phnum = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, phoff + i * phentsize) for i in range(phnum)]
    content = {h[3]: data[h[2]:h[2] + h[5]] for h in headers}

    # The interpreter is not relocated, so it lies low. Of its constants those pages are kept that its
    # data points to: names of types and of members, texts; not its frozen modules.
    pointed = set()
    for kind, flags, _, vaddr, *_ in headers:
        if kind == 1 and flags & 2 and vaddr < LOW:
            words = content[vaddr][:len(content[vaddr]) // 8 * 8]
            pointed.update(word // PAGE for word, in struct.iter_unpack("<Q", words))

    kept = []  # (header, bytes)
    for header in headers:
        kind, flags, offset, vaddr, paddr, filesz, memsz, align = header
        body = content[vaddr]
        if kind != 1 or flags & 2 or body[:4] == b"\x7fELF" and vaddr >= LOW:
            kept.append((header, body))
        elif flags & 1 or vaddr >= LOW:
            kept.append((header, b"" if flags & 1 or len(body) > 0x10000 else body))
        else:
            whole = body[:4] == b"\x7fELF"
            pages = range(vaddr // PAGE, (vaddr + memsz) // PAGE)
            runs = []
            for page in pages:
                # A text may run on into the next page.
                if whole or page in pointed or page - 1 in pointed:
                    if runs and runs[-1][1] == page:
                        runs[-1][1] = page + 1
                    else:
                        runs.append([page, page + 1])
            ends = [run[0] for run in runs[1:]] + [pages.stop]
            if runs and runs[0][0] > pages.start:
                runs.insert(0, [pages.start, pages.start])
                ends.insert(0, runs[1][0])
            for (first, last), end in zip(runs, ends):
                start = first * PAGE
                piece = body[start - vaddr:last * PAGE - vaddr]
                kept.append(((kind, flags, 0, start, paddr, 0, end * PAGE - start, align), piece))

    out = bytearray(data[:64])
    struct.pack_into("<Q", out, 32, 64)
    struct.pack_into("<HH", out, 54, phentsize, len(kept))
    at = 64 + phentsize * len(kept)
    for (kind, flags, _, vaddr, paddr, _, memsz, align), body in kept:
        out += struct.pack("<IIQQQQQQ", kind, flags, at, vaddr, paddr, len(body), memsz, align)
        at += len(body)
    return bytes(out) + b"".join(body for _, body in kept)


with tempfile.TemporaryDirectory() as folder:
    core = trim(dump(folder))
    plain = os.path.join(folder, "records.core")
    with open(plain, "wb") as f:
        f.write(core)
    target = os.path.join(HERE, "records.core.zst")
    subprocess.run(["zstd", "-q", "-f", "--ultra", "-22", plain, "-o", target], check=True)
    print("%d bytes, %d compressed" % (len(core), os.path.getsize(target)))
