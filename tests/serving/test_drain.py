"""SIGTERM, clients that leave, overload and liveness, against servers of their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.bodies import encoded, png
from tests.serving.running import running
from tests.serving.test_hostile import POST, error_of, everything, saved_size

JPEG = {"content-type": "image/jpeg"}


def post(server, data):
    return server.post("/predict", data, content_type="image/png")


def test_a_client_that_leaves_frees_its_place(server):
    with server.connect() as connection:
        data = saved_size(1200, 1200)
        connection.sendall(POST + f"X-Request-Id: left\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        time.sleep(0.1)
    assert server.log("left")["status"] == 499
    assert "segraft_requests_in_progress 0.0" in server.client.get(f"{server.url}/metrics").text


def test_liveness_and_readiness_answer_while_a_prediction_runs(server):
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(post, server, saved_size(1200, 1200))
        time.sleep(0.1)
        answers = 0
        while not slow.done():
            assert server.client.get(f"{server.url}/v2/health/live").json() == {"live": True}
            assert server.client.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
            answers += 1
        assert slow.result().status_code == 200 and answers


@pytest.mark.slow
def test_overload_is_refused_at_once_with_retry_after(model_folder):
    with running(model_folder, queue=2) as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(server, saved_size(1000, 1000)), range(8)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503} and len(answers) - len(refused) >= 2
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert post(server, png("small")).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(2))
def test_sigterm_loses_no_accepted_request(model_folder, repeat):
    with running(model_folder, drain=1.0) as server:
        statuses: list[int] = []
        photo = encoded("large", "JPEG")
        stop = threading.Event()

        def client():
            with httpx.Client(timeout=60) as session:
                while not stop.is_set():
                    try:
                        sent = session.post(f"{server.url}/predict", content=photo, headers=JPEG)
                    except httpx.ConnectError:  # the door is closed: nothing was accepted
                        return
                    statuses.append(sent.status_code)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        server.process.terminate()
        time.sleep(0.3)
        ready = server.client.get(f"{server.url}/v2/health/ready")
        assert ready.status_code == 503 and server.client.get(f"{server.url}/v2/health/live").status_code == 200
        assert server.client.get(f"{server.url}/v2/models/segraft/ready").status_code == 503
        assert server.process.wait(60) == 0
        stop.set()
        for thread in threads:
            thread.join(60)
        assert len(statuses) > 8 and set(statuses) == {200}
        assert server.lines[-1]["message"] == "stopped" and not [line for line in server.raw if line[0] != "{"]


@pytest.mark.slow
def test_who_is_not_answered_within_grace_reads_so(model_folder):
    with running(model_folder, drain=0.1, grace=1.0) as server, server.connect() as connection:
        connection.sendall(POST + b"X-Request-Id: unanswered\r\nContent-Length: 100\r\n\r\nabc")
        time.sleep(0.2)
        server.process.terminate()
        answer = everything(connection)
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer and "stops" in error_of(answer)
        assert server.process.wait(60) == 0 and server.log("unanswered")["status"] == 503
        assert "Traceback" not in "".join(server.raw)


@pytest.mark.slow
def test_a_request_whose_body_comes_late_is_answered_during_the_drain(model_folder):
    with running(model_folder, drain=0.3) as server, server.connect() as connection:
        data = png("small")
        connection.sendall(POST + f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:100])
        time.sleep(0.2)
        server.process.terminate()
        time.sleep(0.8)
        connection.sendall(data[100:])
        assert everything(connection).startswith(b"HTTP/1.1 200")
        assert server.process.wait(60) == 0
