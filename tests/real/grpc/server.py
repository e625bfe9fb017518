"""A gRPC service on a free port of 127.0.0.1, which is the first line of its output. Messages are plain bytes, so that no
generated code is needed; each answer tells in its trailers which user the metadata names."""

import sys
from concurrent import futures

import grpc


def tell_user(context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("told-user", metadata.get("x-forwarded-user", "nobody")),))


def unary(request, context):
    tell_user(context)
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return request.upper()


def down(request, context):
    tell_user(context)
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    tell_user(context)
    return b"%d" % sum(int(request) for request in requests)


def both(requests, context):
    tell_user(context)
    for request in requests:
        yield request[::-1]


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.Echo", HANDLERS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
# Ends with whoever started it.
sys.stdin.read()
server.stop(None)
