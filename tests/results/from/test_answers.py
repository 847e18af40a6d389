import pytest
@pytest.mark.parametrize("n", range(6))
def test_is_small(n):
    assert n < 5
def test_text():
    assert "a<b & c" == "a<b && c", "signs: <&>\"'"
@pytest.mark.skip(reason="no model here")
def test_model():
    pass
@pytest.fixture
def broken():
    raise RuntimeError("no data")
def test_needs(broken):
    pass
@pytest.mark.xfail(reason="known")
def test_known():
    assert False
