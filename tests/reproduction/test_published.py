from reproduction.published import published, rows


def test_rows_are_complete():
    assert all(None not in row and None not in row.values() for row in rows())
    keys = [(r["dataset"], r["protocol"], r["method"]) for r in rows() if r["protocol"]]
    assert len(keys) == len(set(keys)) == 23
    assert all(row["value"] or "SGD" in row["label"] for row in rows())


def test_a_row_is_found_by_its_run():
    assert published("mnist", "paper", "stochastic")["value"] == "1.18"
    assert published("svhn", "bnn-torch7", "bnn")["value"] == "2.53"
    assert published("digits", "paper", "stochastic") is None


def test_deviations_are_numbers_in_order():
    for row in rows():
        numbers = [int(number) for number in row["deviations"].split()]
        assert numbers == sorted(set(numbers))
        assert bool(numbers) == bool(row["protocol"])
