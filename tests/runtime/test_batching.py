"""What waits together goes together; nothing is lost, doubled or reordered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.runtime.batching import Pending, Queue, batch_key, merge, split
from fairlead.runtime.errors import Overloaded
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor


def request(rows: int, width: int = 2, value: float = 0.0, **parameters: object) -> InferRequest:
    return InferRequest([Tensor("x", np.full((rows, width), value, np.float32))], parameters=dict(parameters))


def pending(number: int, one: InferRequest) -> Pending[int]:
    key, rows = batch_key(one)
    return Pending(one, number, key, rows, float(number))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), max_size=40), st.integers(1, 16))
def test_every_request_is_taken_once_in_order_within_its_group_and_batches_respect_the_limit(shapes, limit):
    queue: Queue[int] = Queue(limit, 100)
    for number, (rows, width) in enumerate(shapes):
        queue.add(pending(number, request(rows, width)))
    taken = []
    while batch := queue.take():
        assert len(batch) == 1 or sum(item.rows for item in batch) <= limit
        assert len({item.key for item in batch}) == 1
        taken += [item.ticket for item in batch]
    assert sorted(taken) == list(range(len(shapes)))
    for width in (1, 2, 3):
        same = [number for number in taken if shapes[number][1] == width]
        assert same == sorted(same)
    assert len(queue) == 0


def test_the_oldest_request_goes_first_whatever_its_group():
    queue: Queue[int] = Queue(8, 100)
    for number, width in enumerate([3, 2, 2, 3]):
        queue.add(pending(number, request(1, width)))
    assert [item.ticket for item in queue.take()] == [0, 3]
    assert [item.ticket for item in queue.take()] == [1, 2]


def test_a_request_larger_than_the_limit_goes_alone_and_is_not_refused():
    queue: Queue[int] = Queue(4, 100)
    queue.add(pending(0, request(100)))
    queue.add(pending(1, request(1)))
    assert [item.ticket for item in queue.take()] == [0]


def test_a_full_queue_says_so():
    queue: Queue[int] = Queue(4, 2)
    queue.add(pending(0, request(1)))
    queue.add(pending(1, request(1)))
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        queue.add(pending(2, request(1)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (request(1, 2), request(1, 3)),
        (request(1), InferRequest([Tensor("x", np.zeros((1, 2)))])),
        (request(1), InferRequest([Tensor("z", np.zeros((1, 2), np.float32))])),
        (request(1, temperature=1), request(1, temperature=2)),
        (request(1, flag=1), request(1, flag=True)),
        (request(1), request(1, temperature=1)),
    ],
)
def test_requests_that_differ_for_the_model_are_not_predicted_together(one, other):
    assert batch_key(one)[0] != batch_key(other)[0]


def test_parameters_for_the_server_do_not_keep_requests_apart():
    assert batch_key(request(1, binary_data_output=True))[0] == batch_key(request(2, timeout=5))[0]


@pytest.mark.parametrize(
    "alone",
    [
        InferRequest([]),
        InferRequest([], body={"instances": []}),
        InferRequest([Tensor("x", np.float32(1).reshape(()))]),
        InferRequest([Tensor("x", np.zeros((2, 1))), Tensor("y", np.zeros((3, 1)))]),
        request(1, nested={"a": 1}),
    ],
)
def test_requests_that_have_no_rows_in_common_go_alone(alone):
    assert batch_key(alone) == (None, 0)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_split_undoes_merge(counts):
    requests = [request(rows, value=float(number)) for number, rows in enumerate(counts)]
    merged = merge(requests)
    parts = split(InferResponse([Tensor("y", merged.array * 3)]), counts)
    for number, (part, rows) in enumerate(zip(parts, counts, strict=True)):
        assert np.array_equal(part["y"], np.full((rows, 2), 3.0 * number))


def test_an_answer_whose_rows_do_not_add_up_cannot_be_split():
    with pytest.raises(ValueError, match=r"shape \[1\] for 3 rows"):
        split(InferResponse([Tensor("y", np.zeros(1))]), [1, 2])
