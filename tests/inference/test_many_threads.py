"""One predictor for any number of threads: the same answers, and few copies of the network."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ppcls
from ppcls.inference.engines.base import Settings
from ppcls.inference.engines.table import open_engine
from ppcls.inference.exported_model import open_exported
from ppcls.utils import environment
from ppcls.utils.errors import UserError

ENGINES = ("paddle", "onednn", "onnxruntime", "openvino")


def in_fresh_threads(count, work):
    """What `work(number)` gives in so many threads, all new and all at once."""
    results = [None] * count
    gate = threading.Barrier(count)

    def run(number):
        gate.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_thread_for_each_call(exported, images, engine):
    """As web frameworks have it: no copy of the network for each, and the same bits for all."""
    with ppcls.Predictor(exported, engine=engine, threads=1) as predictor:
        alone = [predictor.predict(image)[0] for image in images]
        for count in (1, 1, 1, 20, 20):
            found = in_fresh_threads(count, lambda n: predictor.predict(images[n % 5])[0])
            for number, result in enumerate(found):
                assert result.classes == alone[number % 5].classes
                np.testing.assert_allclose(result.scores, alone[number % 5].scores, atol=2e-6)
        copies = predictor.engine.copies
        assert 1 <= copies.made <= copies.limit + 1  # one more: the thread's that opened it
        assert copies.limit == environment.core_count()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_on_all_cores_has_one_copy_beside_its_own(exported, images, engine):
    threads = environment.core_count()
    with ppcls.Predictor(exported, engine=engine, threads=threads) as predictor:
        in_fresh_threads(12, lambda n: predictor.predict(images[n % 5]))
        assert predictor.engine.copies.limit == 1
        assert predictor.engine.copies.made <= 2


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_alone_may_be_called_from_new_threads(exported, small, images, engine):
    inputs = small.recipe.preprocess.normalize(images)
    opened = open_engine(open_exported(exported), Settings(engine))
    expected = opened.run(inputs)
    for found in in_fresh_threads(8, lambda n: opened.run(inputs)):
        np.testing.assert_array_equal(found, expected)
    assert opened.copies.made <= opened.copies.limit + 1
    opened.close()


def test_streams_in_several_threads_at_once(exported, images):
    """Batches of one and of many, which share the threads of the predictor."""
    many = [images[n % 5] for n in range(100)]
    with ppcls.Predictor(exported, engine="onednn", threads=2, batch_size=2) as predictor:
        alone = [result.classes for result in predictor.predict(many)]
        before = threading.active_count()
        found = in_fresh_threads(6, lambda n: predictor.predict(many[: 100 - 30 * (n % 3)]))
        for number, results in enumerate(found):
            assert [r.classes for r in results] == alone[: 100 - 30 * (number % 3)]
        assert threading.active_count() <= before + 2 + predictor.engine.copies.limit


def test_opened_in_a_thread_that_is_gone(exported, images):
    """As where a request opens it that comes first."""
    with ThreadPoolExecutor(1) as pool:
        predictor = pool.submit(ppcls.Predictor, exported, engine="onednn").result()
    (expected,) = ppcls.Predictor(exported, engine="onednn").predict(images[0])
    for (found,) in in_fresh_threads(4, lambda n: predictor.predict(images[0])):
        assert found.classes == expected.classes
    predictor.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_predicts_too(exported, images):
    predictor = ppcls.Predictor(exported, engine="onednn", batch_size=1, threads=1)
    predictor.predict(list(images))
    in_fresh_threads(1, lambda n: predictor.predict(images[0]))
    child = os.fork()
    if not child:
        try:
            in_fresh_threads(1, lambda n: predictor.predict(images[0]))
            os._exit(0 if len(predictor.predict(list(images))) == 5 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_broken_photos_where_many_batches_run_at_once(exported, images, batch_size):
    many = [images[n % 5] for n in range(80)]
    many[40] = many[41] = b"broken"
    with ppcls.Predictor(exported, engine="onednn", threads=2, batch_size=batch_size) as predictor:
        stream = predictor.stream(many)
        assert [next(stream).error for _ in range(40)] == [None] * 40
        with pytest.raises(UserError, match=r"^images\[40\]: not a JPEG"):
            next(stream)
        results = predictor.predict(many, on_error="skip")
        assert [n for n, result in enumerate(results) if result.error] == [40, 41]
        assert len(results) == 80
