"""Sets of pictures that the demo did not draw, in the form in which a user brings them.

`letters`: ten letters, each from many fonts; the fonts of the questions are of packages that training does not have. English, with captions.
`flags`: sixty flags as if photographed, 24 pictures each; English and Chinese, no captions. Asked are new photographs, half of them of a
drawing (16 x 11 pixels) that training never saw.
`digits`: ten handwritten digits, 1400 of UCI's 8 x 8 scans, as scikit-learn brings them; English, no captions.
"""

import base64
import csv
import io
import json
import math
import random
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONT_PACKAGES = [
    "fonts-3270", "fonts-adf-accanthis", "fonts-adf-baskervald", "fonts-adf-berenis", "fonts-adf-gillius", "fonts-adf-ikarius", "fonts-adf-irianis",
    "fonts-adf-libris", "fonts-adf-mekanus", "fonts-adf-oldania", "fonts-adf-romande", "fonts-adf-solothurn", "fonts-adf-switzera", "fonts-adf-tribun",
    "fonts-adf-universalis", "fonts-adf-verana", "fonts-aenigma", "fonts-agave", "fonts-allerta", "fonts-anonymous-pro", "fonts-averia-sans-gwf",
    "fonts-averia-serif-gwf", "fonts-b612", "fonts-bebas-neue", "fonts-beteckna", "fonts-cabin", "fonts-cabinsketch", "fonts-cantarell",
    "fonts-cherrybomb", "fonts-comfortaa", "fonts-comic-neue", "fonts-courier-prime", "fonts-crosextra-caladea", "fonts-crosextra-carlito",
    "fonts-dancingscript", "fonts-dosis", "fonts-dustin", "fonts-ebgaramond", "fonts-ecolier-court", "fonts-engadget", "fonts-essays1743",
    "fonts-fantasque-sans", "fonts-fanwood", "fonts-femkeklaver", "fonts-firacode", "fonts-georgewilliams", "fonts-gfs-artemisia", "fonts-gfs-didot",
    "fonts-gfs-neohellenic", "fonts-go", "fonts-goudybookletter", "fonts-hack", "fonts-inconsolata", "fonts-isabella", "fonts-jetbrains-mono",
    "fonts-joscelyn", "fonts-junction", "fonts-jura", "fonts-karla", "fonts-kaushanscript", "fonts-klaudia-berenika", "fonts-kristi", "fonts-lato",
    "fonts-league-mono", "fonts-leckerli-one", "fonts-levien-typoscript", "fonts-liberation", "fonts-lindenhill", "fonts-linex", "fonts-lobster",
    "fonts-monofur", "fonts-mononoki", "fonts-national-park", "fonts-okolaks", "fonts-oldstandard", "fonts-open-sans", "fonts-opendin", "fonts-play",
    "fonts-prociono", "fonts-quattrocento", "fonts-quicksand", "fonts-radisnoir", "fonts-roboto-slab", "fonts-routed-gothic", "fonts-rufscript",
    "fonts-sil-andika", "fonts-sil-charis", "fonts-sora", "fonts-staypuft", "fonts-tomsontalks", "fonts-tuffy", "fonts-ubuntu-title", "fonts-vollkorn",
    "fonts-yanone-kaffeesatz", "fonts-sjfonts", "fonts-humor-sans", "fonts-breip", "fonts-dkg-handwriting",
]  # fmt: skip
FLAG_PACKAGES = ["famfamfam-flag-png", "iso-flags-png-320x240", "fonts-noto-color-emoji"]

LETTERS = "ABCDEFGHJK"
INKS = {"black": (20, 20, 20), "red": (200, 30, 30), "blue": (40, 60, 200), "green": (30, 130, 50), "white": (250, 250, 250)}
PAPERS = {"white": (250, 250, 250), "yellow": (240, 220, 90), "grey": (150, 150, 150), "pink": (240, 180, 190), "black": (20, 20, 20)}

COUNTRIES = {
    "ar": ("Argentina", "阿根廷"), "au": ("Australia", "澳大利亚"), "at": ("Austria", "奥地利"), "bd": ("Bangladesh", "孟加拉国"), "be": ("Belgium", "比利时"),
    "br": ("Brazil", "巴西"), "ca": ("Canada", "加拿大"), "cl": ("Chile", "智利"), "cn": ("China", "中国"), "co": ("Colombia", "哥伦比亚"),
    "hr": ("Croatia", "克罗地亚"), "cu": ("Cuba", "古巴"), "cz": ("Czechia", "捷克"), "dk": ("Denmark", "丹麦"), "eg": ("Egypt", "埃及"),
    "ee": ("Estonia", "爱沙尼亚"), "et": ("Ethiopia", "埃塞俄比亚"), "fi": ("Finland", "芬兰"), "fr": ("France", "法国"), "de": ("Germany", "德国"),
    "gh": ("Ghana", "加纳"), "gr": ("Greece", "希腊"), "hu": ("Hungary", "匈牙利"), "is": ("Iceland", "冰岛"), "in": ("India", "印度"),
    "id": ("Indonesia", "印度尼西亚"), "ie": ("Ireland", "爱尔兰"), "il": ("Israel", "以色列"), "it": ("Italy", "意大利"), "jm": ("Jamaica", "牙买加"),
    "jp": ("Japan", "日本"), "ke": ("Kenya", "肯尼亚"), "kz": ("Kazakhstan", "哈萨克斯坦"), "lb": ("Lebanon", "黎巴嫩"), "my": ("Malaysia", "马来西亚"),
    "mx": ("Mexico", "墨西哥"), "ma": ("Morocco", "摩洛哥"), "np": ("Nepal", "尼泊尔"), "nl": ("Netherlands", "荷兰"), "ng": ("Nigeria", "尼日利亚"),
    "no": ("Norway", "挪威"), "pk": ("Pakistan", "巴基斯坦"), "pa": ("Panama", "巴拿马"), "pe": ("Peru", "秘鲁"), "ph": ("Philippines", "菲律宾"),
    "pt": ("Portugal", "葡萄牙"), "ru": ("Russia", "俄罗斯"), "sa": ("Saudi Arabia", "沙特阿拉伯"), "sn": ("Senegal", "塞内加尔"),
    "sg": ("Singapore", "新加坡"), "za": ("South Africa", "南非"), "kr": ("South Korea", "韩国"), "es": ("Spain", "西班牙"), "se": ("Sweden", "瑞典"),
    "ch": ("Switzerland", "瑞士"), "th": ("Thailand", "泰国"), "tr": ("Turkey", "土耳其"), "ua": ("Ukraine", "乌克兰"), "uy": ("Uruguay", "乌拉圭"),
    "vn": ("Vietnam", "越南"),
}  # fmt: skip
ASKED_EN = ["Which country's flag is this?", "Whose flag is it?"]
ASKED_ZH = ["这是哪个国家的国旗？", "图中是哪国国旗？"]

Row = dict[str, object]
Drawn = tuple[Image.Image, list[tuple[str, str]]]
"""A picture, and its questions with their answers."""


def unpack(packages: Iterable[str], folder: Path) -> Path:
    """Debian packages, downloaded and unpacked into `folder/PACKAGE`; nothing is installed. Those that are there already are left alone."""
    debs = folder / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    absent = [p for p in packages if not (folder / p).is_dir()]
    if absent:
        subprocess.run(["apt-get", "-qq", "download", *absent], cwd=debs, check=True)
    for package in absent:
        (deb,) = debs.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / f"{package}.new")], check=True)
        (folder / f"{package}.new").rename(folder / package)
    return folder


def faces(folder: Path, letters: str = LETTERS) -> list[Path]:
    """Font files below a folder that have all the letters, each drawn differently, in order of their names."""
    found = {p.name: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".ttf", ".otf")}
    return [p for _, p in sorted(found.items()) if _has(p, letters)]


def _has(path: Path, letters: str) -> bool:
    try:
        font = ImageFont.truetype(str(path), 40)
        masks: list[Any] = [font.getmask(letter) for letter in (*letters, "\ue123")]
        return len({bytes(mask) for mask in masks}) == len(masks) and all(min(mask.size) > 5 for mask in masks[:-1])
    except (OSError, ValueError):
        return False


def letter(character: str, font: Path, rng: random.Random) -> Drawn:
    """One letter of one font in one of a few inks, large on a plain paper, and a caption for it."""
    width, height = rng.randint(40, 80), rng.randint(40, 80)
    ink, paper = rng.choice([(i, p) for i in INKS for p in PAPERS if i != p])
    image = Image.new("RGB", (width, height), PAPERS[paper])
    drawn: Any = ImageFont.truetype(str(font), 200).getmask(character)
    box = drawn.size
    scale = min(width / box[0], height / box[1]) * rng.uniform(0.55, 0.85)
    mask = Image.frombytes("L", box, bytes(drawn)).resize((max(1, round(box[0] * scale)), max(1, round(box[1] * scale))), Image.Resampling.LANCZOS)
    place = (round((width - mask.width) * rng.uniform(0.2, 0.8)), round((height - mask.height) * rng.uniform(0.2, 0.8)))
    image.paste(INKS[ink], place, mask)
    return image, [(rng.choice(["Which letter is this?", "Name the letter."]), character), ("Describe the image.", f"the letter {character}, {ink} on {paper}")]


def write_letters(folder: Path, train: list[Path], asked: list[Path], letters: str = LETTERS, seed: int = 0) -> None:
    """Every letter once from every font: `train.json` and `captions.json` from the fonts `train`, `eval.tsv` from those `asked`."""
    pictures = {
        part: [letter(c, font, random.Random(f"letters/{seed}/{font.name}/{c}")) for font in fonts for c in letters]
        for part, fonts in (("train", train), ("asked", asked))
    }
    saved = save(folder, "letter", pictures["train"])
    write_rows(folder, "train.json", [(name, qa[:1]) for name, qa in saved], seed)
    write_rows(folder, "captions.json", [(name, qa[1:]) for name, qa in saved], seed)
    write_questions(folder / "eval.tsv", [(image, *qa[0], "letter", "en") for image, qa in pictures["asked"]])


def flag_drawings(root: Path) -> dict[str, Callable[[str], Image.Image]]:
    """Name of a set of drawings -> the RGBA drawing of a country (two letters)."""
    emoji = ImageFont.truetype(str(next(root.rglob("NotoColorEmoji.ttf"))), 109)
    files = {p.parent.name: p.parent for p in sorted(root.rglob("fr.png"))}
    iso, small = next(p for n, p in files.items() if "320" in n), next(p for n, p in files.items() if "16" in n)

    def waved(country: str) -> Image.Image:
        image = Image.new("RGBA", (140, 140))
        text = "".join(chr(0x1F1E6 + ord(c) - ord("a")) for c in country)
        ImageDraw.Draw(image).text((0, 0), text, font=emoji, embedded_color=True)
        return image.crop(image.getbbox())

    return {
        "iso": lambda c: Image.open(iso / f"{c}.png").convert("RGBA"),
        "emoji": waved,
        "small": lambda c: Image.open(small / f"{c}.png").convert("RGBA").resize((160, 110), Image.Resampling.BICUBIC),
    }


def photograph(drawing: Image.Image, rng: random.Random) -> Image.Image:
    """A drawing as a camera might see it: aslant, in some light, not quite sharp, on a wall, 40 to 80 pixels."""
    side = rng.randint(48, 80)
    height = round(side * rng.uniform(0.62, 0.9))
    wall = tuple(rng.randint(40, 230) for _ in range(3))
    big = Image.new("RGB", (side * 3, height * 3), wall)
    fill = rng.uniform(0.75, 0.98)
    flag = drawing.resize((max(8, round(big.width * fill)), max(8, round(big.height * fill * rng.uniform(0.85, 1)))), Image.Resampling.BICUBIC)
    flag = flag.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    big.paste(flag, (round((big.width - flag.width) * rng.uniform(0.3, 0.7)), round((big.height - flag.height) * rng.uniform(0.3, 0.7))), flag)
    w, h = big.size
    jitter = [(rng.uniform(0, 0.06) * w, rng.uniform(0, 0.06) * h) for _ in range(4)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = jitter
    big = big.transform(big.size, Image.Transform.QUAD, (ax, ay, bx, h - by, w - cx, h - cy, w - dx, dy), Image.Resampling.BICUBIC)
    image = big.resize((side, height), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    light, tint = rng.uniform(0.65, 1.2), [rng.uniform(0.9, 1.1) for _ in range(3)]
    bands = [band.point([min(255, round(v * light * t)) for v in range(256)]) for band, t in zip(image.split(), tint, strict=True)]
    return Image.merge("RGB", bands)


def write_flags(folder: Path, root: Path, number: int = 24, asked: int = 6, countries: Iterable[str] = COUNTRIES, seed: int = 0) -> None:
    """`number` pictures of each flag in `train.json`, each with a question in both languages; `asked` in `eval.tsv`."""
    drawings = flag_drawings(root)
    train, questions = [], []
    for country in countries:
        names = COUNTRIES[country]
        for i in range(number):
            rng = random.Random(f"flags/{seed}/train/{country}/{i}")
            turns = [(rng.choice(ASKED_EN), names[0]), (rng.choice(ASKED_ZH), names[1])]
            rng.shuffle(turns)
            train.append((photograph(drawings[("iso", "emoji")[i % 2]](country), rng), turns))
        for i in range(asked):
            rng = random.Random(f"flags/{seed}/asked/{country}/{i}")
            source = "small" if i % 2 else ("iso", "emoji")[i // 2 % 2]
            image = photograph(drawings[source](country), rng)
            kind = "new drawing" if source == "small" else "new photograph"
            questions += [(image, rng.choice(ASKED_EN), names[0], kind, "en"), (image, rng.choice(ASKED_ZH), names[1], kind, "zh")]
    write_rows(folder, "train.json", save(folder, "flag", train), seed)
    write_questions(folder / "eval.tsv", questions)


def write_digits(folder: Path, number: int = 1400, seed: int = 0) -> None:
    """`number` of the 1797 scans in `train.json`, the others in `eval.tsv`; 40 x 40 pixels, dark on light."""
    from sklearn.datasets import load_digits

    scans: Any = load_digits()
    order = random.Random(f"digits/{seed}").sample(range(len(scans.target)), len(scans.target))
    pictures = []
    for i in order:
        image = Image.fromarray((255 - scans.images[i] * 15).astype("uint8")).resize((40, 40), Image.Resampling.BICUBIC).convert("RGB")
        pictures.append((image, [(random.Random(f"digits/{seed}/{i}").choice(["Which digit is this?", "Read the digit."]), str(scans.target[i]))]))
    write_rows(folder, "train.json", save(folder, "digit", pictures[:number]), seed)
    write_questions(folder / "eval.tsv", [(image, *qa[0], "digit", "en") for image, qa in pictures[number:]])


def save(folder: Path, name: str, pictures: list[Drawn]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Writes the pictures into `folder/images`; (file name, questions and answers) of each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (image, turns) in enumerate(pictures):
        file = f"{name}-{i:05d}.png"
        image.save(folder / "images" / file)
        rows.append((file, turns))
    return rows


def write_rows(folder: Path, file: str, rows: list[tuple[str, list[tuple[str, str]]]], seed: int) -> None:
    """LLaVA JSON, in random order."""
    made: list[Row] = []
    for image, turns in rows:
        conversations = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
        conversations[0]["value"] = "<image>\n" + conversations[0]["value"]
        made.append({"image": image, "conversations": conversations})
    random.Random(f"{file}/{seed}").shuffle(made)
    lines = [json.dumps({"id": f"{i:05d}", **row}, ensure_ascii=False) for i, row in enumerate(made)]
    (folder / file).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_questions(path: Path, questions: list[tuple[Image.Image, str, str, str, str]]) -> None:
    """VLMEvalKit-style TSV of (picture, question, answer, kind, language)."""
    with path.open("w", encoding="utf-8", newline="") as f:
        rows = csv.writer(f, delimiter="\t", lineterminator="\n")
        rows.writerow(["index", "image", "question", "answer", "category", "language"])
        for i, (image, *cells) in enumerate(questions):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            rows.writerow([i, base64.b64encode(buffer.getvalue()).decode(), *cells])


def split_fonts(root: Path, train: int, asked: int, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """Fonts for training and for the questions, no package in both, at most a few faces of each package. Raises SystemExit when there are too few."""
    rng = random.Random(f"fonts/{seed}")
    packages = sorted(p for p in root.iterdir() if p.is_dir() and p.name.startswith("fonts-"))
    rng.shuffle(packages)
    by_package = [found for package in packages if (found := faces(package))]
    per_package = math.ceil((train + asked) / len(by_package)) + 1
    chosen = [rng.sample(found, min(per_package, len(found))) for found in by_package]
    first: list[Path] = []
    while chosen and len(first) < asked:
        first += chosen.pop()
    rest = [face for found in chosen for face in found]
    if len(rest) < train or len(first) < asked:
        raise SystemExit(f"{len(rest)} and {len(first)} fonts with all letters in {root}, {train} and {asked} are needed")
    return rng.sample(rest, train), first[:asked]
