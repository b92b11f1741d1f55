import base64
import hashlib
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.config import EditSettings
from soundguide.contact_sheet import choose_rows, write_contact_sheet
from soundguide.images import encode_png
from soundguide.records import EditResult
from soundguide.sheet_media import mel_levels
from soundguide.storage import Storage
from soundguide.tables import result_table

RATE_HZ = 16_000
VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Collects what a browser would see: elements, their attributes and the text inside; fails on unclosed elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # (tag path's last tag and class, text)
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            tag, attributes = self.open[-1]
            self.texts.append((attributes.get("class") or attributes.get("id") or tag, data))

    def text_of(self, name: str) -> list[str]:
        return [text for where, text in self.texts if where == name]

    def count(self, tag: str, **attributes: str) -> int:
        wanted = attributes.items()
        return sum(found == tag and all(given.get(n) == v for n, v in wanted) for found, given in self.elements)


def picture(seed: int, side: int = 16) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def sound(seconds: float = 0.5) -> bytes:
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return encode_wav(0.5 * np.sin(2 * np.pi * 440 * time), RATE_HZ)


def edited(folder: Path, id: str, *, wav: bytes | None = None, side: int = 16, **fields: Any) -> EditResult:
    wav = sound() if wav is None else wav
    digest = hashlib.sha256(wav).hexdigest()
    stem = hashlib.sha256(id.encode()).hexdigest()[:8]
    for name, data in ((f"{digest}.wav", wav), (f"{stem}.png", picture(1, side)), (f"{stem}-s.png", picture(2, side))):
        (folder / name).write_bytes(data)
    base: dict[str, Any] = {
        "id": id,
        "status": "ok",
        "audio": f"{digest}.wav",
        "seed": 1,
        "settings": EditSettings(),
        "edited_image": f"{stem}.png",
        "source_image": f"{stem}-s.png",
        "similarity_before": 0.1,
        "similarity_after": 0.4,
        "latent_distance": 2.0,
        "gates": (1.0, 1.0),
        "steps": 80,
        "seconds": 1.5,
        "label_names": ("raining", "sea waves"),
        "label_probabilities": (0.8, 0.1),
        "sound_sha256": digest,
    }
    return EditResult(**{**base, **fields})


def failed(id: str, kind: str = "InvalidAudio", **fields: Any) -> EditResult:
    base: dict[str, Any] = {"id": id, "status": "error", "error": f"{id} is broken", "error_kind": kind, "seed": 1}
    return EditResult(**{**base, **fields})


def write(folder: Path, results: list[EditResult] | pa.Table, **options: Any) -> str:
    table = results if isinstance(results, pa.Table) else result_table(results)
    options = {"results": table, "storage": Storage(), "summary": {}, **options}
    uri = write_contact_sheet(output=str(folder), **options)
    assert uri == f"{folder}/index.html"
    return Path(uri).read_text(encoding="utf-8")


def embedded_sounds(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads("".join(Page(text).text_of("sounds")))
    return found


EVIL = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def page_about(word: str, folder: Path) -> str:
    heard: dict[str, Any] = {"label_names": (word,), "label_probabilities": (1.0,)}
    rows = [
        edited(folder, f"{word}1", settings=EditSettings(text=word), **heard),
        failed(f"{word}2", error=word, error_kind=word),
    ]
    named = {"title": word, "config_hash": word, "extra": word, "models": {word: word}}
    return write(folder, rows, summary=named)


def test_untrusted_strings_add_no_element_and_are_shown_as_they_are(tmp_path: Path) -> None:
    tame, wild = page_about("tame", tmp_path), page_about(EVIL, tmp_path)
    assert [tag for tag, _ in Page(wild).elements] == [tag for tag, _ in Page(tame).elements]
    assert not any(name.startswith("on") for _, attributes in Page(wild).elements for name in attributes)
    assert Page(wild).text_of("id") == [f"{EVIL}1", f"{EVIL}2"]
    assert "".join(Page(wild).text_of("fault-kind")) == EVIL


def test_a_sound_name_cannot_close_the_data_block(tmp_path: Path) -> None:
    row = edited(tmp_path, "a")
    name = "x<script>&'\u2028.wav"
    (tmp_path / name).write_bytes(sound())
    text = write(tmp_path, [row.model_copy(update={"audio": name})])
    assert [entry["name"] for entry in embedded_sounds(text).values()] == [name]
    assert Page(text).count("script") == 2


def test_every_kind_of_error_survives_the_cut_and_the_rest_is_even() -> None:
    rows = [EditResult(id=str(i), status="ok", seed=i) for i in range(1000)]
    for at, kind in ((3, "InvalidAudio"), (4, "InvalidAudio"), (500, "InvalidImage"), (999, "SourceNotFound")):
        rows[at] = failed(str(at), kind)
    rows[998] = failed("998", "", status="quarantined")
    chosen = choose_rows(result_table(rows), 20)
    assert len(chosen) == 20 and chosen == sorted(set(chosen))
    assert {3, 500, 998, 999} <= set(chosen)
    rest = [index for index in chosen if index not in {3, 500, 998, 999}]
    assert np.diff(rest).min() >= 60 and np.diff(rest).max() <= 65  # 996 rows in 16 steps


def test_more_kinds_than_rows_keeps_the_first_kinds() -> None:
    assert choose_rows(result_table([failed(str(i), f"Kind{i}") for i in range(5)]), 3) == [0, 1, 2]


def test_a_part_is_called_a_part(tmp_path: Path) -> None:
    text = write(tmp_path, [failed(str(i)) for i in range(9)], max_rows=4, summary={"rows": 1_000_000})
    assert "4 of 1,000,000 rows" in text
    assert Page(text).count("article") == 4


def test_nothing_points_to_a_network_even_when_an_error_names_an_address(tmp_path: Path) -> None:
    message = 'http://example.org/a.wav and https://example.org and src="//example.org" are not allowed'
    text = write(tmp_path, [edited(tmp_path, "a"), failed("http://b", error=message)])
    assert not re.search(r"https?://|src\s*=\s*[\"']?//|@import|url\(", text)
    assert "".join(Page(text).text_of("bdi")).count(message) == 1
    sources = [given[n] for _, given in Page(text).elements for n in ("src", "href") if n in given]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)


def test_the_policy_forbids_the_network_and_allows_exactly_our_style_and_script(tmp_path: Path) -> None:
    text = write(tmp_path, [edited(tmp_path, "a")])
    policy = next(given["content"] for tag, given in Page(text).elements if given.get("http-equiv"))
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in given for _, given in Page(text).elements)


def test_a_sound_shared_by_many_rows_is_embedded_once_and_plays(tmp_path: Path) -> None:
    text = write(tmp_path, [edited(tmp_path, f"r{i}") for i in range(7)] + [edited(tmp_path, "other", wav=sound(12.0))])
    sounds = embedded_sounds(text)
    assert len(sounds) == 2 and text.count("data:audio/") == 2
    lengths = []
    for entry in sounds.values():
        waveform = decode_audio(base64.b64decode(entry["audio"].split(",")[1]), sample_rate=RATE_HZ)
        spectrum = np.abs(np.fft.rfft(waveform))
        assert np.fft.rfftfreq(waveform.size, 1 / RATE_HZ)[spectrum.argmax()] == pytest.approx(440, abs=3)
        lengths.append((round(waveform.size / RATE_HZ, 1), entry["cut"]))
    assert sorted(lengths) == [(pytest.approx(0.5, abs=0.2), False), (pytest.approx(10.0, abs=0.2), True)]
    keys = [given["data-sound"] for tag, given in Page(text).elements if tag == "article"]
    assert len(keys) == 8 and set(keys) == set(sounds)


def test_the_spectrogram_puts_time_right_and_high_tones_up() -> None:
    time = np.arange(RATE_HZ) / RATE_HZ
    low_then_high = np.where(time < 0.5, np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 4000 * time))
    levels = mel_levels(low_then_high.astype(np.float32))
    peaks = levels.argmax(axis=0)
    mel = [2595 * np.log10(1 + hz / 700) for hz in (30, 200, 4000, 8000)]
    expected = [64 - 65 * (m - mel[0]) / (mel[3] - mel[0]) for m in mel[1:3]]
    assert peaks[90] == pytest.approx(expected[0], abs=1) and peaks[270] == pytest.approx(expected[1], abs=1)


def test_a_louder_sound_is_never_darker() -> None:
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.01
    assert (mel_levels(10 * noise) >= mel_levels(noise)).all() and (mel_levels(10 * noise) > mel_levels(noise)).any()


def test_no_rows_make_a_page_that_says_so(tmp_path: Path) -> None:
    text = write(tmp_path, [])
    assert Page(text).count("article") == 0
    assert "This run has no rows" in text


def test_only_errors_make_a_page_of_errors(tmp_path: Path) -> None:
    text = write(tmp_path, [failed("a"), failed("b", "InvalidImage"), failed("c", "", status="quarantined")])
    assert Page(text).text_of("fault-kind") == ["InvalidAudio", "InvalidImage", "quarantined"]
    assert "".join(Page(text).text_of("bdi")).count("a is broken") == 1


def test_every_id_is_shown_once_in_manifest_order(tmp_path: Path) -> None:
    ids = ["zeta", "alpha & co", "../../x", "ünï"]
    text = write(tmp_path, [edited(tmp_path, id) for id in ids[:3]] + [failed(ids[3], error="broken")])
    assert Page(text).text_of("id") == ids
    assert all(html.unescape(text).count(id) == 1 for id in ids)


def test_small_pictures_are_embedded_as_written(tmp_path: Path) -> None:
    row = edited(tmp_path, "a")
    text = write(tmp_path, [row])
    shown = [given["src"] for tag, given in Page(text).elements if tag == "img" and given.get("width") == "16"]
    assert [base64.b64decode(src.split(",")[1]) for src in shown] == [picture(2), picture(1)]


def test_large_pictures_shrink_until_the_page_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundguide.contact_sheet.PAGE_BYTES", 300_000)
    text = write(tmp_path, [edited(tmp_path, f"r{i}", side=520) for i in range(2)])
    assert len(text) < 400_000
    shown = [given for tag, given in Page(text).elements if tag == "img" and given.get("width")]
    for given in shown:
        image = Image.open(io.BytesIO(base64.b64decode(given["src"].split(",")[1])))
        assert image.width == int(given["width"]) <= 512
    assert len(shown) == 4


def test_a_lost_picture_and_a_lost_sound_leave_the_rest_of_the_row(tmp_path: Path) -> None:
    row = edited(tmp_path, "a", edited_image="gone.png", audio="gone.wav")
    text = write(tmp_path, [row])
    assert Page(text).text_of("missing") == ["no picture"]
    assert embedded_sounds(text) == {}
    assert "could not be read again" in text


def test_only_settings_that_differ_are_listed_and_shared_ones_once(tmp_path: Path) -> None:
    shared = EditSettings(num_steps=7)
    rows = [edited(tmp_path, "a", settings=shared), edited(tmp_path, "b", settings=shared.override({"mix": 0.25}))]
    page = Page(write(tmp_path, rows))
    assert "".join("".join(text for _, text in page.texts).split()).count("num_steps") == 1
    assert page.text_of("settings") and "0.25" in page.text_of("b")


def test_gates_are_drawn_only_when_they_differ(tmp_path: Path) -> None:
    rows = [edited(tmp_path, "a"), edited(tmp_path, "b", gates=(0.5, 1.0, 1.5))]
    page = Page(write(tmp_path, rows))
    assert page.count("div", **{"class": "gates"}) == 1
    heights = [float(given["height"][:-1]) for tag, given in page.elements if tag == "rect" and given.get("y")]
    assert np.array(heights[-3:]) / heights[-1] == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_a_photo_shows_its_inversion_error_and_itself(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(picture(5, 200))
    row = edited(tmp_path, "a", seed=None, image="photo.png", inversion_error=0.0312)
    page = Page(write(tmp_path, [row]))
    assert "0.031" in page.text_of("dd") and page.count("img", **{"class": "inset"}) == 1


def test_a_kept_identity_is_shown_and_a_missing_face_is_told(tmp_path: Path) -> None:
    rows = [edited(tmp_path, "a", identity_similarity=0.8125), edited(tmp_path, "b", identity_note="no face there")]
    page = Page(write(tmp_path, rows))
    assert page.text_of("dt").count("identity") == 1 and "0.812" in page.text_of("dd")
    assert page.text_of("note") == ["no face there"]


def test_an_optional_note_column_is_shown(tmp_path: Path) -> None:
    table = result_table([edited(tmp_path, "a"), edited(tmp_path, "b")])
    table = table.append_column("note", pa.array(["out of the miniature's domain", None]))
    page = Page(write(tmp_path, table))
    assert page.count("p", **{"class": "note"}) == 1
    assert "out of the miniature's domain" in page.text_of("bdi")


def test_scores_without_a_number_are_a_dash_and_never_nan(tmp_path: Path) -> None:
    nan = float("nan")
    page = Page(write(tmp_path, [edited(tmp_path, "a", similarity_before=nan, latent_distance=nan)]))
    assert "–" in page.text_of("dd")
    assert not any("nan" in str(given.get(f"data-{key}")) for _, given in page.elements for key in ("gain", "distance"))


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = [edited(tmp_path, "a"), failed("b")]
    assert write(tmp_path, rows) == write(tmp_path, rows)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]  # no temporary file stays
