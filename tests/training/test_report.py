"""A run as one page of curves, and the band of recorded runs that it is compared with."""

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from minigpt import config, presets
from minigpt.model.config import GPTConfig
from minigpt.model.hf_config import to_hugging_face
from minigpt.training import recorded
from minigpt.training.recorded import Band, find_band, make_band, read_record, verdict
from minigpt.training.report import write_report

ROOT = Path(__file__).parents[2]
TINY = ["--n-layer", "2", "--n-embd", "64", "--max-steps", "40", "--eval-every", "10"]


def make_run(folder: Path, *, upto: int = 40, flags: tuple[str, ...] = (), held_out: float = 3.0,
             bad: range = range(0), held_out_bytes: int = 1000) -> Path:  # fmt: skip
    """A run folder as `fit` leaves it; `held_out` is the loss of the last look, each earlier one 1 higher."""
    run = config.from_command_line(presets.quick(), [*TINY, *flags], "")
    (folder / "data").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(asdict(run)), encoding="utf-8")
    compressed = {"bytes": held_out_bytes, "xz -9e": 1.9, "gzip -9": 2.2}
    (folder / "data" / "prepared.json").write_text(json.dumps({"compressed": compressed}), encoding="utf-8")
    events = []
    for step in range(1, upto + 1):
        value = None if step in bad else 4 + 4 / step
        events.append({"step": step, "split": "train", "loss": value, "lr": 1e-3, "grad_norm": value,
                       "tokens": 100 * step, "tok_per_s": 50.0})  # fmt: skip
        if step % 10 == 0:
            loss = held_out + (upto - step) / 10
            split = "final" if step == run.train.max_steps else "val"
            events.append({"step": step, "split": split, "loss": loss, "perplexity": math.exp(loss),
                           "bits_per_byte": 1.5, "mem": 1_200_000_000})  # fmt: skip
    write_events(folder, events)
    return folder


def write_events(folder: Path, events: list[dict]) -> None:
    lines = [json.dumps(event) + "\n" for event in events]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")


def page_of(folder: Path, bands: Path | None = None) -> str:
    return write_report(folder, bands or folder / "no-bands").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return page_of(make_run(tmp_path_factory.mktemp("runs") / "quick & quiet"))


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_asks_nobody_for_anything(page):
    """It can be mailed, moved and opened offline, and opening it tells no one."""
    assert "<script" not in page and "@import" not in page and "://" not in page
    targets = re.findall(r"""(?:href|src)\s*=\s*["']?([^"'\s>]*)""", page)
    targets += re.findall(r"url\(([^)]*)\)", page)
    assert targets and all(target.startswith(("#", "data:,")) for target in targets)


def test_the_same_run_gives_the_same_bytes(tmp_path, page):
    """No date, no random ids: a report can be compared and kept under version control."""
    assert page_of(make_run(tmp_path / "quick & quiet")) == page


def test_a_users_matplotlibrc_changes_nothing(tmp_path, page):
    """House styles with LaTeX and large fonts are common, and would break a page laid out for ours."""
    import matplotlib

    folder = make_run(tmp_path / "quick & quiet")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "ytick.labelcolor": "blue"}):
        assert page_of(folder) == page


def test_ids_are_unique_and_colours_are_left_to_the_page(page):
    """Five figures share one document: a repeated id would lend one figure's clipping to another; and a fixed
    colour would vanish in dark mode."""
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 5
    assert all(set(re.findall(r"#[0-9a-f]{6}\b", figure)) <= {"#000000"} for figure in figures)
    assert "prefers-color-scheme: dark" in page


def test_who_cannot_see_the_curves_hears_them(page):
    """Each figure says in a sentence what its curve does."""
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert labels[0] == "Loss over 40 steps: training from 8 to 4.1, held out 3.000"
    assert labels[2:] == ["Learning rate: from 0.001 to 0.001", "Gradient norm: from 8 to 4.1",
                          "Tokens per second: 50 in the median step"]  # fmt: skip


def test_the_final_figures_stand_on_top(page):
    """40 steps of 100 tokens at 50 tokens per second are 80 seconds."""
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)<small>", page))
    assert tiles == {"held-out loss": "3.000", "perplexity": "20.09", "bits per byte": "1.500",
                     "minutes of steps": "1.3", "tokens": "4,000"}  # fmt: skip
    assert "xz -9e 1.90, gzip -9 2.20" in page and "Finished: 40 steps." in page


def test_a_stage_may_have_scores_of_its_own(tmp_path):
    """A reward model has an accuracy and no perplexity; a fine-tuned one was made from no corpus of its own."""
    folder = make_run(tmp_path / "run")
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(settings | {"corpus": {}, "tokenizer": {}, "kind": "reward"}))
    (folder / "data" / "prepared.json").write_text("{}")
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        if event["split"] != "train":
            del event["loss"], event["perplexity"], event["bits_per_byte"]
            event["accuracy"] = 0.75
    write_events(folder, events)
    tiles = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)<small>", page_of(folder)))
    assert tiles["accuracy"] == "0.75" and tiles["held-out loss"] == tiles["perplexity"] == "–"
    assert "rowgroup>corpus" not in page_of(folder)


def test_names_and_settings_are_shown_as_text(page):
    """A folder's name may hold what HTML reads as markup; settings stand as they would be typed."""
    assert "<h1>quick &amp; quiet</h1>" in page
    assert "<td>--n-layer</td><td>2</td>" in page and "<td>--tied</td><td>on</td>" in page
    assert "<td>--window</td><td>none</td>" in page


def test_the_shape_is_that_of_the_weights(tmp_path):
    """With --init the settings' shape is not the model's; the folder's config.json is."""
    folder = make_run(tmp_path / "run")
    shape = to_hugging_face(GPTConfig(n_layer=7, vocab_size=300))
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    assert "7 layers, 256 wide, 4 heads, context 256, vocabulary 300" in page_of(folder)


# --- runs that are not whole --------------------------------------------------------------------------------


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    """People look while it runs: no held-out loss yet, and a line of one point."""
    page = page_of(make_run(tmp_path / "run", upto=1))
    assert "1 of 40 steps so far" in page and "first look at step 10" in page
    assert "<dt>held-out loss</dt><dd>–<small>" in page


def test_a_run_that_was_made_longer_is_not_finished(tmp_path):
    """Its old "final" stands in the middle; what counts is the newest look and the steps asked for."""
    folder = make_run(tmp_path / "run")
    events = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    longer = make_run(tmp_path / "longer", flags=("--max-steps", "80"))
    (longer / "metrics.jsonl").write_text(events, encoding="utf-8")
    assert "40 of 80 steps so far" in page_of(longer)


@pytest.mark.filterwarnings("error")
def test_a_run_without_one_finite_loss_has_a_page(tmp_path):
    """The run one most wants to look at: no crash, no warning, and each empty figure (loss twice) says so."""
    folder = make_run(tmp_path / "run", upto=9, bad=range(1, 10))
    page = page_of(folder)
    assert "In 9 steps the loss or the gradient was not finite" in page
    assert page.count("no finite value") == 3 and "training never finite" in page


def test_steps_without_a_finite_loss_are_counted(tmp_path):
    """They made no update, so a reader of the curve should know."""
    page = page_of(make_run(tmp_path / "run", bad=range(5, 6)))
    assert "In 1 step the loss or the gradient was not finite" in page


def test_what_is_no_run_is_refused_with_what_would_work(tmp_path):
    """The usual mistake is the folder above."""
    make_run(tmp_path / "out" / "quick")
    with pytest.raises(ValueError, match=r"no run\.json in it; it holds runs, though: .*out/quick"):
        write_report(tmp_path / "out")
    with pytest.raises(ValueError, match="give a run's folder, like out/quick"):
        write_report(tmp_path / "elsewhere")


def test_a_run_before_its_first_step_is_refused(tmp_path):
    """Nothing to draw yet; the message says how to get there."""
    folder = make_run(tmp_path / "run", upto=0)
    for prepare in (lambda: None, (folder / "metrics.jsonl").unlink):
        prepare()
        with pytest.raises(ValueError, match=r"metrics\.jsonl holds no step yet; start the run"):
            write_report(folder)


def test_damaged_settings_are_named(tmp_path):
    """A cut-off run.json is one clear line, not a traceback from the JSON reader."""
    folder = make_run(tmp_path / "run")
    (folder / "run.json").write_text('{"out_dir": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        write_report(folder)


def test_without_matplotlib_the_extra_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    """matplotlib is no core dependency; who lacks it must learn the one line that helps."""
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.style"):
        monkeypatch.setitem(sys.modules, module, None)
    folder = make_run(tmp_path / "run")
    with pytest.raises(ImportError, match=r'needs the extra "report": pip install "minigpt\[report\]"'):
        write_report(folder)
    assert not list(folder.glob("report*"))


# --- bands --------------------------------------------------------------------------------------------------


def three_runs(folder: Path, **how) -> list[recorded.Record]:
    losses = {1: 3.0, 2: 3.25, 3: 3.125}
    return [read_record(make_run(folder / f"seed{seed}", flags=("--seed", str(seed)), held_out=loss, **how))
            for seed, loss in losses.items()]  # fmt: skip


def test_a_band_by_hand(tmp_path):
    """Lowest and highest of 3.0, 3.25 and 3.125, one higher per look back."""
    band = make_band(three_runs(tmp_path))
    assert band.losses == [(10, 6.0, 6.25), (20, 5.0, 5.25), (30, 4.0, 4.25), (40, 3.0, 3.25)]
    assert band.seeds == [1, 2, 3] and band.held_out_bytes == 1000
    assert band.settings["n_layer"] == 2 and not band.settings.keys() & recorded.FREE


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (3.1, "At step 40 this run lies inside the band of our 3 recorded runs."),
        (3.25, "inside the band"),
        (3.5, "just above the band of our 3 recorded runs, by 0.250 nats: no more than they differ among"),
        (3.51, "lies above the band of our 3 recorded runs, by 0.260 nats: look for spikes in the gradient"),
        (2.9, "just below the band"),
        (2.5, "lies below the band of our 3 recorded runs, by 0.500 nats: look at whether the held-out text"),
    ],
)
def test_where_a_run_lies_by_hand(tmp_path, loss, words):
    """The band is 3.0 to 3.25. Half of all healthy runs end outside of three others, so only what is farther
    off than the band is wide is said to be off."""
    band = make_band(three_runs(tmp_path))
    said = verdict(band, read_record(make_run(tmp_path / "mine", held_out=loss)))
    assert said and words in said


def test_an_unfinished_run_is_judged_at_its_newest_look(tmp_path):
    """At step 20 the band is 5.0 to 5.25; before the first look there is nothing to say."""
    band = make_band(three_runs(tmp_path))
    said = verdict(band, read_record(make_run(tmp_path / "mine", upto=25, held_out=4.6)))
    assert said == "At step 20 this run lies inside the band of our 3 recorded runs."
    assert verdict(band, read_record(make_run(tmp_path / "new", upto=5))) is None


def test_a_run_that_blew_up_is_not_judged_by_its_past(tmp_path):
    """Its last finite look may well have been inside."""
    band = make_band(three_runs(tmp_path))
    folder = make_run(tmp_path / "mine", held_out=3.1)
    events = recorded.read_events(folder)
    write_events(folder, [*events[:-1], events[-1] | {"loss": None}])
    said = verdict(band, read_record(folder))
    assert said and said.startswith("At step 40 the held-out loss was not finite: look for")


def test_another_held_out_text_is_said(tmp_path):
    """Python's own library differs from version to version, and the loss a little with it."""
    band = make_band(three_runs(tmp_path))
    said = verdict(band, read_record(make_run(tmp_path / "mine", held_out=3.1, held_out_bytes=1200)))
    assert said and "another one (1,200 bytes, theirs 1,000), as with another version of Python" in said


def test_a_band_is_for_runs_of_the_same_settings_only(tmp_path):
    """Seed, folder, threads, device, --resume and --overwrite may differ; a learning rate may not."""
    bands = tmp_path / "bands"
    bands.mkdir()
    (bands / "tiny.json").write_text(json.dumps(make_band(three_runs(tmp_path))._asdict()), encoding="utf-8")
    free = "--out-dir out/mine --seed 9 --threads 1 --device cpu --resume never --overwrite"
    mine = make_run(tmp_path / "mine", flags=tuple(free.split()), held_out=3.1)
    page = page_of(mine, bands)
    assert "inside the band of our 3 recorded runs" in page and '<i class="band">' in page
    other = make_run(tmp_path / "other", flags=("--lr", "0.123"), held_out=3.1)
    assert find_band(read_record(other), bands) is None
    assert "recorded runs" not in page_of(other, bands)


def test_a_band_outlives_new_settings(tmp_path):
    """What is on record was made before a setting existed, so with its default; another value is another run."""
    bands = tmp_path / "bands"
    bands.mkdir()
    band = make_band(three_runs(tmp_path))._asdict()
    del band["settings"]["near_duplicates"]
    (bands / "tiny.json").write_text(json.dumps(band), encoding="utf-8")
    assert find_band(read_record(make_run(tmp_path / "mine")), bands)
    assert find_band(read_record(make_run(tmp_path / "other", flags=("--near-duplicates", "on"))), bands) is None


def test_the_band_that_is_shipped_is_that_of_the_default_run(tmp_path):
    """A preset that is tuned again needs a band that is recorded again."""
    folder = make_run(tmp_path / "run")
    (folder / "run.json").write_text(json.dumps(asdict(presets.quick())), encoding="utf-8")
    assert find_band(read_record(folder)) is not None


def test_the_command_prints_a_band_that_the_report_reads(tmp_path):
    """What is shipped is what this prints."""
    folders = [str(record.folder) for record in three_runs(tmp_path)]
    command = [sys.executable, "-m", "minigpt.training.recorded", *folders]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (tmp_path / "bands").mkdir()
    (tmp_path / "bands" / "tiny.json").write_text(printed, encoding="utf-8")
    band = find_band(read_record(tmp_path / "seed1"), tmp_path / "bands")
    assert band and band.losses[-1] == [40, 3.0, 3.25]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ([{}], "at least two finished runs"),
        ([{}, {"flags": ("--seed", "2", "--lr", "0.123")}], "differ in lr; .* nothing but device, out_dir,"),
        ([{}, {}], r"same seed \(\[1, 1\]\)"),
        ([{}, {"flags": ("--seed", "2"), "upto": 30}], "run1 has not finished; resume it"),
    ],
)
def test_what_makes_no_band_is_refused(tmp_path, changes, complaint):
    """A band from one run, from unequal runs or from the same run twice would mislead everyone after."""
    records = [read_record(make_run(tmp_path / f"run{i}", **change)) for i, change in enumerate(changes)]
    with pytest.raises(ValueError, match=complaint):
        make_band(records)


def test_every_shipped_band_belongs_to_a_preset():
    """A preset that changes leaves its band behind, and nobody would notice: no report would show it."""
    wanted = [dict(recorded.flat(json.loads(config.to_json(make())))) for make in presets.PRESETS.values()]
    for file in recorded.BANDS.glob("*.json"):
        band = Band(**json.loads(file.read_text(encoding="utf-8")))
        fits = any(band.settings.items() <= preset.items() for preset in wanted)
        assert fits, f"{file.name}: record it again"
