"""No request is lost, whatever happens to processes that answer: real workers, a made engine."""

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import made_engine
import psutil
import pytest
from made_engine import image, probability

from ppcls.serve import model as serving
from ppcls.serve.metrics import Metrics
from ppcls.serve.model import Model
from ppcls.serve.problems import ProblemError
from ppcls.serve.server import runner
from ppcls.serve.settings import Limits, ServeSettings
from ppcls.utils.errors import UserError

SOON = 60.0  # seconds, on a busy machine
LIGHTS = range(20, 240, 10)


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
    """Workers find the engine, and no longer wait than tests need."""
    places = [str(Path(made_engine.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(serving, "PAUSES", (0.0, 0.05))
    monkeypatch.setattr(serving, "WATCH", 0.1)


def settings(**given):
    limits = Limits(**given.pop("limits", {"seconds": SOON}))
    options = {"engine": "made_engine.Made", "threads": 1}
    fixed = {"batch": 2, "delay": 0.0, "options": options, "use": ("made_engine",)}
    return ServeSettings(models=(), limits=limits, **{**fixed, **given})


def run(folder, scenario, **given):
    """What `scenario(model)` gives of a model that is loaded; no process may be left over."""

    async def work():
        model = Model("made", folder, settings(**given), Metrics())
        try:
            await model.load()
            return await asyncio.wait_for(scenario(model), 2 * SOON)
        finally:
            await model.close(at_once=True)

    try:
        return runner()(work())  # on the loop that a service has
    finally:
        until_now(lambda: not children())


def children():
    """This process's own workers; those of services that other tests have started are theirs."""
    found = psutil.Process().children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE and is_worker(one)]


def is_worker(process):
    with suppress(psutil.Error):
        return "ppcls.serve.worker" in " ".join(process.cmdline())
    return False


def until_now(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


async def until(true):
    end = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def ask(model, *images):
    """The version that answered, and what it says of each image."""
    header = {"kind": "images", "sizes": list(map(len, images)), "topk": None, "threshold": None}
    version, found, _ = await model.submit(header, list(images), len(images))
    return version, found["images"]


def asking(model, *lights):
    """A task that asks for images of these greys."""
    images = [image(light, light, light) for light in lights]
    return asyncio.create_task(ask(model, *images))


def assert_right(found, weight, *lights):
    for one, light in zip(found, lights, strict=True):
        wanted = probability(weight, light)
        scores = dict(zip(one["classes"], one["scores"], strict=True))
        assert scores == {0: pytest.approx(1 - wanted), 1: pytest.approx(wanted)}


def metric(model, name, **labels):
    value = model.metrics.registry.get_sample_value(name, {"model": "made", **labels})
    return 0 if value is None else value


def restarts(model, why):
    return metric(model, "ppcls_worker_restarts_total", why=why)


def reloads(model, outcome):
    return metric(model, "ppcls_reloads_total", outcome=outcome)


def process_of(model):
    return model.current.workers[0].process.pid


@pytest.fixture
def folder(tmp_path):
    return made_engine.write(tmp_path / "made", 1.0)


# ------------------------------------------------------------------ workers that die


def test_a_killed_worker_loses_no_request(folder):
    """Those that it had, those that wait, and those that come while there is none."""

    async def scenario(model):
        first = process_of(model)
        early = [asking(model, light, 255 - light) for light in LIGHTS]
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        await until(lambda: not model.is_ready)
        late = [asking(model, light, 255 - light) for light in LIGHTS]
        for light, one in zip([*LIGHTS, *LIGHTS], early + late, strict=True):
            assert_right((await one)[1], 1.0, light, 255 - light)
        second = process_of(model)
        assert second != first
        assert restarts(model, "died") == 1
        # Its connection may be closed before anybody was told of it.
        model.current.workers[0].writer.transport.abort()
        assert_right((await asking(model, 60))[1], 1.0, 60)
        assert process_of(model) != second
        assert model.count == 0

    run(folder, scenario)


def test_a_request_that_ends_workers_takes_no_other_with_it(folder):
    async def scenario(model):
        before = [asking(model, light) for light in LIGHTS[:5]]
        bad = asyncio.create_task(ask(model, image(90, 90, 90), image(*made_engine.ENDS)))
        behind = [asking(model, light) for light in LIGHTS[5:10]]
        with pytest.raises(ProblemError, match="died twice over this request") as caught:
            await bad
        assert caught.value.status == 500
        for light, one in zip(LIGHTS, before + behind, strict=False):
            assert_right((await one)[1], 1.0, light)
        assert restarts(model, "died") == 2

    run(folder, scenario, batch=4)


def test_an_image_that_the_engine_cannot_run_fails_alone(folder):
    """It shares a batch with others, which are answered; the process goes on."""

    async def scenario(model):
        first = process_of(model)
        asked = [asking(model, light) for light in LIGHTS]
        found = (await ask(model, image(*made_engine.RAISES), image(70, 70, 70)))[1]
        assert found[0]["kind"] == "engine"
        assert "an image that it cannot run" in found[0]["error"]
        assert_right(found[1:], 1.0, 70)
        for light, one in zip(LIGHTS, asked, strict=True):
            assert_right((await one)[1], 1.0, light)
        assert process_of(model) == first

    run(folder, scenario, batch=4)


@pytest.mark.parametrize(
    "what",
    [
        made_engine.HANGS,
        pytest.param(made_engine.FREEZES, marks=pytest.mark.slow),
    ],
)
def test_a_request_over_which_workers_hang_takes_no_other_with_it(folder, what):
    async def scenario(model):
        bad = asyncio.create_task(ask(model, image(*what)))
        behind = [asking(model, light) for light in LIGHTS]
        with pytest.raises(ProblemError, match="hung twice over this request"):
            await bad
        for light, one in zip(LIGHTS, behind, strict=True):
            assert_right((await one)[1], 1.0, light)
        assert restarts(model, "hung") == 2

    run(folder, scenario, hang=1.0)


@pytest.mark.slow
def test_a_stopped_worker_is_replaced(folder):
    async def scenario(model):
        first = process_of(model)
        os.kill(first, signal.SIGSTOP)
        asked = [asking(model, light) for light in LIGHTS]
        for light, one in zip(LIGHTS, asked, strict=True):
            assert_right((await one)[1], 1.0, light)
        assert process_of(model) != first
        assert restarts(model, "hung") == 1

    run(folder, scenario, hang=1.0)


@pytest.mark.slow
def test_a_service_that_stood_still_as_a_whole_replaces_nobody(folder):
    """Frozen containers and debuggers stop all of its processes; none of them hangs."""

    async def scenario(model):
        first = process_of(model)
        await asyncio.sleep(1.5)
        os.kill(first, signal.SIGSTOP)
        time.sleep(3)  # this process does not get on, either
        os.kill(first, signal.SIGCONT)
        assert_right((await asking(model, 50))[1], 1.0, 50)
        await asyncio.sleep(1.5)
        assert process_of(model) == first

    run(folder, scenario, hang=2.0)


@pytest.mark.slow
def test_of_two_workers_one_goes_on_where_the_other_dies(folder):
    async def scenario(model):
        assert len(model.current.workers) == 2
        asked = [asking(model, light, light) for light in LIGHTS]
        await asyncio.sleep(0)
        pids = [worker.process.pid for worker in model.current.workers]
        assert all(worker.pending for worker in model.current.workers)
        os.kill(pids[0], signal.SIGKILL)
        for light, one in zip(LIGHTS, asked, strict=True):
            assert_right((await one)[1], 1.0, light, light)
        await until(lambda: len(model.current.workers) == 2)
        assert pids[1] in [worker.process.pid for worker in model.current.workers]
        assert len(children()) == 2

    run(folder, scenario, workers=2)


# ------------------------------------------------------------------ versions


def test_a_new_version_takes_over_without_a_gap(folder, tmp_path):
    """The old one answers until the new one is ready, and no request has no answer."""
    other = made_engine.write(tmp_path / "other", -1.0)

    async def scenario(model):
        old = model.current
        loading = asyncio.create_task(model.load(other))
        versions = []
        while not loading.done() or versions[-1] is old:
            version, found = await asking(model, 40, 200)
            assert_right(found, {old.digest: 1.0}.get(version.digest, -1.0), 40, 200)
            versions.append(version)
        new = await loading
        assert versions[0] is old
        assert new.digest != old.digest
        assert versions[-1] is new
        assert versions.index(new) == versions.count(old)  # no way back
        assert reloads(model, "taken") == 1
        assert model.before is old
        for _ in range(serving.TRIAL_IMAGES // 2):
            await asking(model, 40, 200)
        await until(lambda: len(model.workers) == 1)  # the old one is not needed any more
        assert process_of(model) == next(iter(model.workers)).number

    run(folder, scenario)


def test_a_damaged_export_is_refused_and_the_old_one_goes_on(folder):
    async def scenario(model):
        old = model.current
        (folder / made_engine.NETWORK).write_text('{"weight": ')
        for count in (1, 2):
            with pytest.raises(UserError) as caught:
                await model.load()
            assert len(caught.value.lines) == 1
            assert model.current is old
            assert_right((await asking(model, 60))[1], 1.0, 60)
            assert reloads(model, "refused") == count
            shutil.rmtree(folder, ignore_errors=True)
        await until(lambda: len(model.workers) == 1)

    run(folder, scenario)


def test_a_new_version_that_fails_is_taken_back(folder, tmp_path):
    """And the requests at which it failed are answered by the one before."""

    async def scenario(model):
        old = model.current
        for count, how in enumerate(("ends", "raises"), 1):
            new = await model.load(made_engine.write(tmp_path / how, -1.0, **{how: True}))
            assert model.current is new
            asked = [asking(model, light) for light in LIGHTS]
            for light, one in zip(LIGHTS, asked, strict=True):
                version, found = await one
                assert version is old
                assert_right(found, 1.0, light)
            assert model.current is old
            assert reloads(model, "taken_back") == count
        await until(lambda: len(model.workers) == 1)

    run(folder, scenario)


def test_the_folder_of_a_dead_worker_may_hold_another_model_by_now(folder, tmp_path):
    """Which is not passed off as the version before, and does not leave the service dead."""

    async def scenario(model):
        old = model.current
        made_engine.write(folder, 2.0)
        os.kill(process_of(model), signal.SIGKILL)
        version, found = await asking(model, 60)
        assert version is not old
        assert (version.number, version.digest != old.digest) == ("2", True)
        assert_right(found, 2.0, 60)
        assert model.before is None

    run(folder, scenario)


@pytest.mark.slow
def test_the_folder_of_a_dead_worker_may_be_gone_for_a_while(folder, tmp_path):
    async def scenario(model):
        old = model.current
        folder.rename(tmp_path / "aside")
        os.kill(process_of(model), signal.SIGKILL)
        asked = asking(model, 60)
        await until(lambda: "does not exist" in model.problem)
        assert not model.is_ready
        (tmp_path / "aside").rename(folder)
        version, found = await asked
        assert version is old
        assert_right(found, 1.0, 60)
        assert model.problem == ""

    run(folder, scenario)


@pytest.mark.slow
def test_the_one_that_stands_by_is_given_up_where_its_files_are_gone(folder):
    """The usual reload, in place: what is in the folder is the new version."""

    async def scenario(model):
        old = model.current
        made_engine.write(folder, 2.0)
        new = await model.load()
        assert model.before is old
        os.kill(old.workers[0].process.pid, signal.SIGKILL)
        await until(lambda: model.before is None)
        assert model.current is new
        assert_right((await asking(model, 60))[1], 2.0, 60)
        await until(lambda: len(model.workers) == 1)

    run(folder, scenario)


@pytest.mark.slow
def test_the_highest_number_is_served(tmp_path):
    place = tmp_path / "made"
    made_engine.write(place / "2", 1.0)
    made_engine.write(place / "1", 5.0)

    async def scenario(model):
        assert model.current.number == "2"
        made_engine.write(place / "10", 2.0)
        assert (await model.load()).number == "10"
        version, found = await asking(model, 60)
        assert version.number == "10"
        assert_right(found, 2.0, 60)
        assert model.folder == place

    run(place, scenario)


@pytest.mark.slow
def test_a_folder_that_is_replaced_while_it_is_opened_is_one_or_the_other(tmp_path):
    """Never the digest of one with the weights of the other."""
    folder = made_engine.write(tmp_path / "made", 1.0, opening=0.5)
    done = []

    async def exchange():
        while not done:
            for weight in (2.0, 1.0):
                aside = made_engine.write(tmp_path / "aside", weight, opening=0.5)
                folder.rename(tmp_path / "away")
                aside.rename(folder)
                shutil.rmtree(tmp_path / "away")
                await asyncio.sleep(0.35)

    async def scenario(model):
        weights = {model.current.digest: 1.0}
        exchanging = asyncio.create_task(exchange())
        for _ in range(3):
            with suppress(UserError):
                await model.load()
            version, found = await asking(model, 60)
            weight = weights.get(version.digest, 2.0)
            assert_right(found, weight, 60)
        done.append(True)
        await exchanging

    run(folder, scenario)


def test_a_folder_that_cannot_be_opened_is_one_line(tmp_path):
    folder = made_engine.write(tmp_path / "made", 1.0)
    (folder / made_engine.NETWORK).write_text("{}")
    with pytest.raises(UserError, match="weight") as caught:
        run(folder, lambda model: None)
    assert len(caught.value.lines) == 1


@pytest.mark.slow
def test_a_worker_that_is_never_ready_is_given_up(folder, monkeypatch):
    async def scenario(model):
        assert model.current.opening >= serving.LEAST_OPENING
        made_engine.write(folder, 1.0, opening=1000)
        monkeypatch.setattr(serving, "OPENING", 3.0)
        with pytest.raises(UserError, match="not ready after"):
            await model.load()

    run(folder, scenario)


# ------------------------------------------------------------------ requests


def test_a_full_queue_says_when_to_come_again(folder):
    async def scenario(model):
        holding = asyncio.create_task(ask(model, *[image(*made_engine.SLEEPS)] * 3))
        more = asking(model, 50)
        await asyncio.sleep(0)
        with pytest.raises(ProblemError, match="4 images wait") as caught:
            await asking(model, 50)
        assert caught.value.status == 503
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert model.metrics.registry.get_sample_value("ppcls_refused_total", {"why": "queue"})
        assert len((await holding)[1]) == 3
        assert_right((await more)[1], 1.0, 50)
        # One that is larger is taken where nothing waits.
        assert_right((await asking(model, *LIGHTS))[1], 1.0, *LIGHTS)

    run(folder, scenario, limits={"seconds": SOON, "queue": 4})


def test_a_request_has_its_time_and_no_more(folder):
    """It ends by itself, and what it wanted is not predicted behind it."""

    async def scenario(model):
        start = time.monotonic()
        bad = [asyncio.create_task(ask(model, *[image(*made_engine.SLEEPS)] * 8)) for _ in "ab"]
        for one in bad:
            with pytest.raises(ProblemError, match="no answer within 1 s") as caught:
                await one
            assert caught.value.status == 504
        assert time.monotonic() - start >= 1
        await until(lambda: model.count == 0)
        assert time.monotonic() - start < 16 * made_engine.SLEEP  # else all were predicted

    run(folder, scenario, limits={"seconds": 1.0})


def test_a_client_that_hangs_up_stops_costing(folder):
    async def scenario(model):
        start = time.monotonic()
        left = [asyncio.create_task(ask(model, *[image(*made_engine.SLEEPS)] * 8)) for _ in "abcd"]
        await asyncio.sleep(0.1)
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert not model.waiting
        assert_right((await asking(model, 50))[1], 1.0, 50)
        assert time.monotonic() - start < 16 * made_engine.SLEEP  # of 32 images, half at most
        await until(lambda: model.count == 0)
        worker = model.current.workers[0]
        assert (worker.pending, worker.images) == ({}, 0)
        # What clients left behind is no reason to send a worker more: one that stands still would
        # be sent without end, and all of that be kept in memory.
        sent = []
        send = worker.send
        worker.send = lambda one: (sent.append(one.count), send(one))
        os.kill(worker.process.pid, signal.SIGSTOP)
        for _ in range(20):
            left = [asking(model, light) for light in LIGHTS]
            await asyncio.sleep(0.001)
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        assert 0 < sum(sent) <= model.current.room()
        assert not model.waiting
        os.kill(worker.process.pid, signal.SIGCONT)
        assert_right((await asking(model, 50))[1], 1.0, 50)

    run(folder, scenario)


def test_closing_answers_what_is_there(folder):
    async def work():
        model = Model("made", folder, settings(), Metrics())
        await model.load()
        asked = [asking(model, light, light) for light in LIGHTS]
        slow = asyncio.create_task(ask(model, image(*made_engine.SLEEPS)))
        await asyncio.sleep(0)
        assert model.waiting  # more than a worker is given
        await model.close()
        for light, one in zip(LIGHTS, asked, strict=True):
            assert_right((await one)[1], 1.0, light, light)
        assert len((await slow)[1]) == 1
        with pytest.raises(ProblemError):
            await asking(model, 50)

    runner()(work())
    assert not children()


@pytest.mark.slow
def test_closing_while_a_version_is_loaded_leaves_nobody(folder, tmp_path):
    other = made_engine.write(tmp_path / "other", 2.0, opening=1000)

    async def work():
        model = Model("made", folder, settings(), Metrics())
        await model.load()
        loading = asyncio.create_task(model.load(other))
        await until(lambda: len(children()) == 2)
        await model.close()
        with pytest.raises(UserError, match="the service ends"):
            await loading

    runner()(work())
    until_now(lambda: not children())
