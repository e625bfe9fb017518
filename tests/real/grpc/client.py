"""Calls every kind of method of server.py at ADDRESS, as whoever the COOKIE names, and prints what came as JSON.

    client.py ADDRESS [COOKIE]
"""

import json
import queue
import sys

import grpc

SECONDS = 30


def main(address, cookie=None):
    metadata = [("cookie", cookie)] if cookie else []
    with grpc.insecure_channel(address) as channel:
        # One call tells whether anything can be called at all.
        first = outcome(lambda: single(channel.unary_unary("/tests.Echo/Unary"), b"hello", metadata))
        results = {"unary": first}
        if first["code"] == "OK":
            results |= {
                "failing": outcome(lambda: single(channel.unary_unary("/tests.Echo/Unary"), b"fail", metadata)),
                "down": outcome(lambda: stream(channel.unary_stream("/tests.Echo/Down"), b"1000", metadata)),
                "up": outcome(lambda: single(channel.stream_unary("/tests.Echo/Up"), numbers(), metadata)),
                "both": outcome(lambda: in_step(channel.stream_stream("/tests.Echo/Both"), metadata)),
                "large": outcome(lambda: large(channel.unary_unary("/tests.Echo/Unary"), metadata)),
                "unknown": outcome(lambda: single(channel.unary_unary("/tests.Echo/Nothing"), b"", metadata)),
            }
        print(json.dumps(results))


def outcome(call):
    try:
        answer, trailers = call()
        return {"code": "OK", "answer": answer, "user": dict(trailers).get("told-user")}
    except grpc.RpcError as error:
        return {"code": error.code().name, "message": error.details()}


def single(method, request, metadata):
    answer, call = method.with_call(request, metadata=metadata, timeout=SECONDS)
    return answer.decode(), call.trailing_metadata()


def stream(method, request, metadata):
    call = method(request, metadata=metadata, timeout=SECONDS)
    answers = [int(answer) for answer in call]
    return answers == list(range(len(answers))) and len(answers), call.trailing_metadata()


def in_step(method, metadata):
    """Each message is sent only after the answer to the one before has come: nothing on the way may wait for more."""
    requests = queue.Queue()
    call = method(iter(requests.get, None), metadata=metadata, timeout=SECONDS)
    answered = 0
    for number in range(100):
        message = b"message %d" % number
        requests.put(message)
        if next(call) != message[::-1]:
            break
        answered += 1
    requests.put(None)
    rest = list(call)
    return answered if not rest else -1, call.trailing_metadata()


def large(method, metadata):
    """Larger than any window or buffer on the way."""
    request = b"x" * 3_000_000
    answer, call = method.with_call(request, metadata=metadata, timeout=SECONDS)
    return len(answer) if answer == request.upper() else -1, call.trailing_metadata()


def numbers():
    return (b"%d" % number for number in range(1000))


main(*sys.argv[1:])
