"""The runner of the benches: names, the document, and the page of results."""

import json

import numpy as np
import pytest

from bench import __main__ as runner
from bench import report, secagg_peer
from federation.errors import ChaotianError


def test_every_bench_has_its_module():
    assert {"secure-sum"} <= set(runner.present()) <= set(runner.NAMES)
    assert runner.module_of("secure-sum") == "bench.secure_sum"
    assert runner.chosen([]) == runner.present()
    assert runner.chosen(["secure-sum", "secure-sum"]) == ["secure-sum"]


@pytest.mark.parametrize("name", ["", "nope", "report", "../secure-sum", "secure_sum"])
def test_an_unknown_name_is_wrong_use(name, capsys):
    with pytest.raises(ChaotianError) as error:
        runner.chosen([name])
    assert error.value.code == "USAGE"
    assert runner.main([name]) == 2
    said = capsys.readouterr().err
    assert said.startswith("chaotian: error USAGE: ") and "\nhint: " in said and "secure-sum" in said


def test_figures_are_medians_and_ratios_say_how_many_times_better():
    case = report.case("x", [1.0, 9.0, 2.0], [4.0, 8.0, 6.0], unit="s", peer_name="p", target=3)
    assert (case["ours"], case["peer"], case["ratio"], case["runs"], case["met"]) == (2.0, 6.0, 3.0, 3, True)
    assert case["spread"] == {"ours": [1.0, 9.0], "peer": [4.0, 8.0]}
    assert report.case("x", [2.0], [5.0], unit="s", target=3)["met"] is False
    alone = report.case("x", [50.0], unit="ms", target=60)
    assert (alone["peer"], alone["ratio"], alone["met"]) == (None, None, True)
    assert report.case("x", [70.0], unit="ms", target=60)["met"] is False


def test_a_document_is_written_and_its_section_replaced(tmp_path):
    page = tmp_path / "RESULTS.md"
    first = [report.case("one | a", [1.0], [2.0], unit="s", peer_name="p", note="n")]
    document = report.write("secure-sum", first, tmp_path / "bench", page)
    stored = json.loads((tmp_path / "bench" / "secure-sum.json").read_text())
    assert stored == document and set(stored) == {"name", "machine", "git", "results"}
    assert set(stored["results"][0]) >= {"case", "ours", "peer", "peer_name", "ratio", "unit", "runs", "note"}
    assert {"cpu", "cores", "python"} <= set(stored["machine"])
    report.write("rounds", [report.case("other", [3.0], unit="ms")], tmp_path / "bench", page)
    report.write("secure-sum", [report.case("two", [5.0], unit="s")], tmp_path / "bench", page)
    text = page.read_text()
    assert text.startswith("# Results") and text.count("## secure-sum") == 1 and text.count("## rounds") == 1
    assert "one" not in text.split("## secure-sum")[1] and "| two |" in text and "| other |" in text
    assert text.index("## secure-sum") < text.index("## rounds")


def test_replacing_keeps_what_stands_around():
    text = "# Results\n\n## a\n\nold\n\n## ab\n\nkept\n"
    new = report.replace_section(text, "a", "## a\n\nnew \\1\n")
    assert new == "# Results\n\n## a\n\nnew \\1\n\n## ab\n\nkept\n"
    assert report.replace_section(new, "a", "## a\n\nnew \\1\n") == new


def test_figures_read_well():
    assert [report.figure(x) for x in (0, 0.012345, 3.14159, 252344.4)] == ["0", "0.0123", "3.14", "252,344"]


def test_the_peer_and_our_side_agree_on_small_vectors():
    random = np.random.default_rng(3)
    vectors = [random.uniform(-1, 1, 100) for _ in range(4)]
    result = secagg_peer.run(vectors, threshold=3)
    assert np.abs(result.mean - np.mean(vectors, axis=0)).max() < 1e-4
    assert result.members > 0 and result.total > result.members and result.uploaded > 4 * 100 * 8
