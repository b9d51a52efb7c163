"""Processes that do not come together, or lose one another: who, for how long, in one line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from ppcls.train import rendezvous
from ppcls.train.launch import LOST
from ppcls.train.rendezvous import Channel, network_of
from ppcls.utils.errors import TRY_AGAIN

TRAIN = ("train", "-c", "recipe.yaml", "-o", "model.name=ResNet18", "train.batch_size=2")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def started(monkeypatch, workdir):
    """Tell this process that a launcher started it: `started(rank, count, address=…)`."""

    def started(rank, count=2, port=0, host="127.0.0.1", **others):
        port = port or free_port()
        for name in ("MASTER_ADDR", "MASTER_PORT", "PADDLE_MASTER", "PADDLE_TRAINER_ENDPOINTS"):
            monkeypatch.delenv(name, raising=False)
        given = {"TRAINER_ID": rank, "TRAINERS_NUM": count, "MASTER": f"{host}:{port}"} | others
        for name, value in given.items():
            monkeypatch.setenv(f"PADDLE_{name}", str(value))
        monkeypatch.setenv("PPCLS_JOIN_SECONDS", "0.55")
        return port

    return started


@contextmanager
def listening(port, answer):
    """A program that listens at a port and answers whoever comes."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(30)

        def serve():
            try:
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(1000)
                        connection.sendall(answer)
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        yield


def come(port, answers, **member):
    """Come to process 0 as another one does, as soon as it listens; in a thread."""
    member = {"rank": 1, "count": 2, "pid": 7, "host": "elsewhere"} | member

    def visit():
        for _ in range(1000):
            with socket.socket() as connection:
                connection.settimeout(30)
                if connection.connect_ex(("127.0.0.1", port)):
                    threading.Event().wait(0.02)
                    continue
                connection.sendall(json.dumps({"join": member}).encode() + b"\n")
                for line in connection.makefile("rb"):
                    answers.append(json.loads(line))
            return

    thread = threading.Thread(target=visit, daemon=True)
    thread.start()
    return thread


def one_line(found, expected=2):
    code, _, err = found
    assert code == expected, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(("rank", "other"), [(0, 1), (1, 0)])
def test_one_that_does_not_come_is_named_with_the_limit(run, started, rank, other):
    port = started(rank)
    code, out, err = run(*TRAIN)
    where = f"process {other} of 2 at 127.0.0.1:{port}, up to 1 second"
    assert f"waiting for {where}" in out
    text = f"process {other} of 2 did not come to 127.0.0.1:{port} within 1 second"
    assert text in one_line((code, out, err), TRY_AGAIN)
    assert "PPCLS_JOIN_SECONDS" in err


def test_several_that_do_not_come_are_named(run, started):
    started(0, 4)
    assert "processes 1, 2, 3 of 4 did not come" in one_line(run(*TRAIN), TRY_AGAIN)


def test_a_port_that_is_taken(run, started):
    port = started(0)
    with listening(port, b""):
        err = one_line(run(*TRAIN), TRY_AGAIN)
    assert f"port {port} of this machine" in err
    assert "taken by another process" in err
    assert "PADDLE_MASTER" in err


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[1]\n", b"\xff\n", b"{\n"]
)
def test_another_program_at_the_address(run, started, answer):
    port = started(1)
    with listening(port, answer):
        said = one_line(run(*TRAIN), TRY_AGAIN)
    assert "what answers there is no process of ppcls" in said


def test_strangers_that_come_to_process_0_do_no_harm(run, started):
    port = started(0)
    answers = []
    threads = [come(port, answers, rank=-1), come(port, answers, host=5)]
    assert "process 1 of 2 did not come" in one_line(run(*TRAIN), TRY_AGAIN)
    for thread in threads:
        thread.join()
    assert answers == []


def test_two_with_one_number(run, started):
    port = started(0, 3)
    answers = []
    threads = [come(port, answers, count=3, pid=pid) for pid in (7, 8)]
    err = one_line(run(*TRAIN), TRY_AGAIN)
    assert "two processes have the number 1" in err
    assert "pid 7 on elsewhere" in err
    assert "pid 8 on elsewhere" in err
    for thread in threads:
        thread.join()
    refused = [answer["refused"] for answer in answers if "refused" in answer]
    assert [f"error: {text}\n" for text in refused] == [err, err]


def test_different_numbers_of_processes(run, started):
    port = started(0, 2)
    answers = []
    thread = come(port, answers, count=3)
    err = one_line(run(*TRAIN))
    assert "process 1 of 3 (pid 7 on elsewhere) has come to process 0 of 2" in err
    thread.join()
    assert answers == [{"refused": err.removeprefix("error: ").rstrip()}]


def test_one_that_is_refused_says_why(run, started):
    port = started(1)
    with listening(port, json.dumps({"refused": "no \x1b[31mroom"}).encode() + b"\n"):
        assert one_line(run(*TRAIN)) == "error: no \\x1b[31mroom\n"


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"TRAINER_ID": "²"}, "PADDLE_TRAINER_ID='²'"),
        ({"TRAINER_ID": ""}, "PADDLE_TRAINER_ID=''"),
        ({"TRAINER_ID": "-1"}, "PADDLE_TRAINER_ID='-1'"),
        ({"TRAINER_ID": "2"}, "PADDLE_TRAINER_ID=2: PADDLE_TRAINERS_NUM=2 processes"),
        ({"MASTER": ""}, "PADDLE_MASTER=''"),
        ({"MASTER": "localhost"}, "PADDLE_MASTER='localhost'"),
        ({"MASTER": "localhost:http"}, "PADDLE_MASTER='localhost:http'"),
        ({"MASTER": "localhost:70000"}, "PADDLE_MASTER='localhost:70000'"),
        ({"MASTER": "::1:6170"}, "PADDLE_MASTER='::1:6170'"),
        ({"MASTER": "a..b:6170"}, "a..b: no such host"),
        ({"TRAINER_ENDPOINTS": "a:1,b:2,c:3"}, "PADDLE_TRAINER_ENDPOINTS has 3 addresses"),
    ],
)
def test_what_makes_no_sense_in_the_environment(run, started, given, part):
    started(0, **given)
    assert part in one_line(run(*TRAIN))


def test_the_first_waits_for_its_own_name_to_become_known(run, started, monkeypatch):
    """As in a cluster, which learns of a machine a little after its programs start."""
    started(0, host="nowhere.invalid")
    found = run(*TRAIN)
    assert "nowhere.invalid: no such host is known" in one_line(found, TRY_AGAIN)
    assert "waiting for a machine named nowhere.invalid, up to 1 second" in found[1]
    asked = []

    def later(host, *rest):
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", later)
    monkeypatch.setattr(rendezvous.time, "sleep", lambda seconds: None)
    place = rendezvous.Meeting(rendezvous.Member(0, 2), "a-while-later", 6170, "PADDLE_MASTER")
    rendezvous.require_name(place, 600)
    assert asked == ["a-while-later"] * 3


@pytest.mark.parametrize("name", ["PPCLS_JOIN_SECONDS", "PPCLS_SILENCE_SECONDS"])
@pytest.mark.parametrize("value", ["soon", "0", "-5", "nan", "1e9"])
def test_limits_that_make_no_sense(run, started, monkeypatch, name, value):
    started(0)
    monkeypatch.setenv(name, value)
    assert f"{name}='{value}'" in one_line(run(*TRAIN))


# --------------------------------------------------------------------- who was there and is not

# A process that meets the others again and again, as training does, without Paddle.
MEETS = """
import sys
import time
from ppcls.train.link import Link, PeerError
from ppcls.train.rendezvous import meet

place, members, channels = meet()
link = Link(members, channels, place.own.rank, float(sys.argv[1]))
print("there", flush=True)
try:
    for word in sys.stdin:
        if word == "leave\\n":
            link.leave("its image is broken", 2)
            break
        if word == "stop\\n":
            link.stop()
            continue
        if word == "wait\\n":
            with link.instead():
                print("waiting", flush=True)
                time.sleep(600)
        link.meet()
        print("met, asked to stop" if link.stopped else "met", flush=True)
except PeerError as error:
    print(error, flush=True)
    sys.exit(error.code)
"""


@pytest.fixture
def crowd():
    """Processes that have met: `crowd(count, limit)`."""
    processes = []

    def crowd(count, limit):
        port = free_port()
        for rank in range(count):
            own = {"PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(count)}
            own |= {"PADDLE_MASTER": f"127.0.0.1:{port}"}
            process = subprocess.Popen(
                [sys.executable, "-c", MEETS, str(limit)],
                env=os.environ | own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            processes.append(process)
        assert [process.stdout.readline() for process in processes] == ["there\n"] * count
        say("meet", *processes)
        assert [process.stdout.readline() for process in processes] == ["met\n"] * count
        return processes

    yield crowd
    for process in processes:
        process.kill()
        process.communicate()


def say(word, *processes):
    for process in processes:
        process.stdin.write(f"{word}\n")


def told(process):
    """What a process says last."""
    return process.stdout.read().splitlines()


def test_one_that_is_stopped_ends_all_and_ends_when_it_goes_on(crowd):
    first, second, third = crowd(3, 1.5)
    third.send_signal(signal.SIGSTOP)
    say("meet", first, second, third)
    warning, line = told(first)
    who = rf"process 2 of 3 \(pid {third.pid}\) has not answered for"
    assert re.match(rf"{who} \d seconds?; the run ends after 2 seconds \(PPCLS_SILENCE", warning)
    assert re.match(rf"{who} 2 seconds: it was stopped", line)
    assert told(second)[-1] == line
    third.send_signal(signal.SIGCONT)
    assert told(third)[-1] == line


@pytest.mark.slow
def test_the_first_one_stopped_ends_the_others(crowd):
    first, second = crowd(2, 1.5)
    first.send_signal(signal.SIGSTOP)
    say("meet", first, second)
    assert told(second)[-1].startswith(f"process 0 of 2 (pid {first.pid}) has not answered for 2")
    first.send_signal(signal.SIGCONT)
    say("meet", first)
    assert told(first)[-1].startswith(f"process 1 of 2 (pid {second.pid}) ended without a word")


@pytest.mark.slow
def test_all_stopped_and_woken_go_on(crowd):
    processes = crowd(2, 1.5)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    threading.Event().wait(2)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    say("meet", *processes)
    assert [process.stdout.readline() for process in processes] == ["met\n"] * 2


def test_one_that_is_busy_for_longer_than_the_limit_is_waited_for(crowd):
    first, second = crowd(2, 1)
    say("meet", first)
    threading.Event().wait(1.5)
    say("meet", second)
    assert (first.stdout.readline(), second.stdout.readline()) == ("met\n", "met\n")


def test_one_that_is_killed_or_leaves_is_named(crowd):
    first, second, third = crowd(3, 60)
    third.kill()
    say("meet", first, second)
    line = f"process 2 of 3 (pid {third.pid}) ended without a word"
    assert told(first)[-1].startswith(line)
    assert told(second)[-1].startswith(line)
    assert [first.wait(), second.wait()] == [LOST, LOST]


def test_one_that_leaves_with_an_error_tells_it_and_its_exit_code(crowd):
    """The highest of several exit codes counts for Slurm: a mistake must not look like a loss."""
    first, second, third = crowd(3, 60)
    say("leave", third)
    say("meet", first, second)
    line = f"process 2 of 3 (pid {third.pid}) has ended: its image is broken"
    assert [told(process)[-1] for process in (first, second)] == [line, line]
    assert [first.wait(), second.wait()] == [2, 2]


def test_one_that_is_asked_to_stop_tells_the_others(crowd):
    processes = crowd(3, 60)
    say("stop", processes[2])
    say("meet", *processes)
    assert [process.stdout.readline() for process in processes] == ["met, asked to stop\n"] * 3


def test_one_that_goes_ends_those_that_wait_where_nobody_looks(crowd):
    """As Paddle waits where it connects the processes."""
    first, second, third = crowd(3, 60)
    say("wait", first, second)
    assert [process.stdout.readline() for process in (first, second)] == ["waiting\n"] * 2
    third.kill()
    assert [process.wait() for process in (first, second)] == [LOST, LOST]


def test_a_channel_knows_its_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        channel = Channel(socket.create_connection(server.getsockname()))
        assert network_of(channel) == "lo"
        channel.close()
    assert network_of(channel) == ""
