"""gRPC reflection: clients such as grpcurl learn which services and messages there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

_FINAL_NAME: Final = reflection.SERVICE_NAME.replace("v1alpha", "v1")
_METHOD: Final = "ServerReflectionInfo"


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Describe services, and reflection itself, in both versions of the protocol.

    The library has version v1alpha only; v1 has the same messages in a package of another name.

    Parameters
    ----------
    server : grpc.aio.Server
    services : sequence of str
        Their full names, whose descriptors are in protobuf's default pool.
    """
    names = (*services, reflection.SERVICE_NAME, _FINAL_NAME)
    descriptor_pool.Default().AddSerializedFile(_final_file().SerializeToString())
    reflection.enable_server_reflection(names, server)
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(_FINAL_NAME, {_METHOD: method})
    server.add_generic_rpc_handlers((handler,))


def _final_file() -> descriptor_pb2.FileDescriptorProto:
    """Return the file of version v1."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    alpha.ClearField("options")
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
