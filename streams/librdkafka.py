"""The C API of librdkafka as far as it is called here: functions, words of a message, codes, and errors.

Problem: a wrong argument to C kills the process, so there is one place where each function is declared with the types
of rdkafka.h. The library is the one inside the confluent-kafka wheel; constants and layouts are those of librdkafka
2.x, which keeps them ABI stable.

Functions carry rdkafka.h's names without `rd_kafka_`. Handles, pointers and structs are addresses (int), texts bytes;
time-outs are milliseconds, -1 for ever. A function does not raise: what it returns says whether it failed, as told
below. What raises, raises ClientError.

HAZARD functions that wait do so without the GIL, and cannot be interrupted.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka

from schemas.errors import DriftledgerError
from schemas.memory import bind, kernel, load_i64

if TYPE_CHECKING:
    from collections.abc import Mapping

#: int64 words of one rd_kafka_message_t: err, topic, partition, payload, len, key, key_len, offset, private. Error and
#: partition are C ints, in the lower half of theirs.
MESSAGE_WORDS: Final = 9
W_ERROR, W_TOPIC, W_PARTITION, W_VALUE, W_VALUE_LENGTH, W_KEY, W_KEY_LENGTH, W_OFFSET, W_PRIVATE = range(MESSAGE_WORDS)

# Of rd_kafka_resp_err_t: the client's own are negative.
ERROR_ALL_BROKERS_DOWN: Final = -187
ERROR_PARTITION_EOF: Final = -191
ERROR_PURGED: Final = -152
ERROR_TIMED_OUT: Final = -185
ERROR_TRANSPORT: Final = -195
#: With auto.offset.reset=error: there is no record at the wanted offset, or none of the wanted leader epoch.
ERROR_NO_SUCH_OFFSET: Final = -140

TIMESTAMP_LOG_APPEND: Final = 2

PRODUCER, CONSUMER = 0, 1  # of rd_kafka_type_t

# Flags of produce_batch. Without COPY the value's memory stays the caller's, and is read until the delivery is known.
NO_FLAGS: Final = 0
COPY: Final = 0x2
WAIT_WHILE_FULL: Final = 0x4
ANY_PARTITION: Final = -1
DESTROY_NO_CONSUMER_CLOSE: Final = 0x8
PURGE_ALL: Final = 0x1 | 0x2

INT32_MASK: Final = 0xFFFF_FFFF
_SIGN_32: Final = 0x8000_0000
_CONF_OK: Final = 0
_ERROR_TEXT_BYTES: Final = 512


class ClientError(DriftledgerError):
    """An error librdkafka returned.

    Attributes: code: of rd_kafka_resp_err_t, negative for the client's own; partition: -1 where none in particular.
    """

    def __init__(self, call: str, code: int, text: str, *, partition: int = -1) -> None:
        super().__init__(f"{call} failed: {text} (code {code})")
        self.code = code
        self.partition = partition


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka*.so*")) + sorted(folder.glob("librdkafka*.dylib"))
    if not found:
        message = f"no librdkafka in {folder}: install confluent-kafka from a wheel (pip install confluent-kafka)"
        raise DriftledgerError(message)
    return ctypes.CDLL(str(found[0]))


_lib = _library()
POINTER = ctypes.c_void_p
INT = ctypes.c_int
_I32, _I64, _SIZE, _TEXT = ctypes.c_int32, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p


def declare(name: str, result: Any, *arguments: Any) -> Any:
    """The function rd_kafka_NAME with the ctypes of its result (None for void) and arguments."""
    function = getattr(_lib, "rd_kafka_" + name)
    function.restype = result
    function.argtypes = list(arguments)
    return function


def _address(name: str) -> int:
    return int(ctypes.cast(getattr(_lib, "rd_kafka_" + name), POINTER).value or 0)


# Configuration. conf_set returns 0 or writes why not into its text; callbacks are addresses of C functions.
conf_new = declare("conf_new", POINTER)
conf_set = declare("conf_set", INT, POINTER, _TEXT, _TEXT, _TEXT, _SIZE)
conf_set_log_cb = declare("conf_set_log_cb", None, POINTER, POINTER)
conf_set_dr_msg_cb = declare("conf_set_dr_msg_cb", None, POINTER, POINTER)
conf_set_stats_cb = declare("conf_set_stats_cb", None, POINTER, POINTER)
conf_set_opaque = declare("conf_set_opaque", None, POINTER, POINTER)
conf_destroy = declare("conf_destroy", None, POINTER)

# Clients. new takes the configuration over, and returns None with the reason in its text.
new = declare("new", POINTER, INT, POINTER, _TEXT, _SIZE)
destroy_flags = declare("destroy_flags", None, POINTER, INT)
topic_new = declare("topic_new", POINTER, POINTER, _TEXT, POINTER)
topic_destroy = declare("topic_destroy", None, POINTER)

# What to read. assign returns an error code, list_set_offset too.
list_new = declare("topic_partition_list_new", POINTER, INT)
list_add = declare("topic_partition_list_add", POINTER, POINTER, _TEXT, _I32)
list_set_offset = declare("topic_partition_list_set_offset", INT, POINTER, _TEXT, _I32, _I64)
list_destroy = declare("topic_partition_list_destroy", None, POINTER)
set_leader_epoch = declare("topic_partition_set_leader_epoch", None, POINTER, _I32)
assign = declare("assign", INT, POINTER, POINTER)

# Reading. consume_queue returns a message or None, consume_batch_queue how many it wrote or -1.
queue_get_consumer = declare("queue_get_consumer", POINTER, POINTER)
queue_destroy = declare("queue_destroy", None, POINTER)
consume_queue = declare("consume_queue", POINTER, POINTER, INT)
consume_batch_queue = declare("consume_batch_queue", ctypes.c_ssize_t, POINTER, INT, POINTER, _SIZE)

# Writing. produce_batch returns how many rows it queued, with the error of the others in theirs; flush and purge an
# error code; poll how many callbacks it served.
produce_batch = declare("produce_batch", INT, POINTER, _I32, INT, POINTER, INT)
flush = declare("flush", INT, POINTER, INT)
poll = declare("poll", INT, POINTER, INT)
purge = declare("purge", INT, POINTER, INT)

# Transactions. Each returns an error or None: see `check`.
init_transactions = declare("init_transactions", POINTER, POINTER, INT)
begin_transaction = declare("begin_transaction", POINTER, POINTER)
commit_transaction = declare("commit_transaction", POINTER, POINTER, INT)

# Errors.
_err2str = declare("err2str", _TEXT, INT)
_error_code = declare("error_code", INT, POINTER)
_error_string = declare("error_string", _TEXT, POINTER)
_error_destroy = declare("error_destroy", None, POINTER)

# For kernels: of a message, by address. message_timestamp is milliseconds since 1970 and writes its type; the two of
# headers return 0 or an error code, and write the addresses and lengths they were asked for.
message_timestamp = bind("driftledger_timestamp", _address("message_timestamp"), "int64", "int64", "int64")
message_leader_epoch = bind("driftledger_leader_epoch", _address("message_leader_epoch"), "int32", "int64")
message_headers = bind("driftledger_headers", _address("message_headers"), "int32", "int64", "int64")
header_get_all = bind(
    "driftledger_header", _address("header_get_all"), "int32", "int64", "int64", "int64", "int64", "int64"
)
message_destroy = bind("driftledger_message_destroy", _address("message_destroy"), "void", "int64")


@kernel
def partition_of(message: int) -> int:
    """Of a message."""
    partition: int = load_i64(message + 8 * W_PARTITION) & INT32_MASK
    return partition


@kernel
def signed_32(word: int) -> int:
    """The C int in the lower half of a word."""
    low = word & INT32_MASK
    return low - (INT32_MASK + 1) if low & _SIGN_32 else low


@kernel
def error_of(message: int) -> int:
    """Code of a message, 0 for a record."""
    error: int = signed_32(load_i64(message + 8 * W_ERROR))
    return error


def error_text(code: int) -> str:
    """librdkafka's words for an error code."""
    return str(_err2str(code).decode())


def check(call: str, error: int | None) -> None:
    """Raise ClientError for the error that a call of a transaction returned, and free it."""
    if not error:
        return
    code = _error_code(error)
    text = _error_string(error).decode()
    _error_destroy(error)
    raise ClientError(call, code, text)


def configure(settings: Mapping[str, str | int]) -> int:
    """A configuration with those settings. Raises ClientError for one that librdkafka refuses."""
    conf = conf_new()
    text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
    for name, value in settings.items():
        if conf_set(conf, name.encode(), str(value).encode(), text, _ERROR_TEXT_BYTES) != _CONF_OK:
            conf_destroy(conf)
            raise ClientError(f"setting {name}={value}", -1, text.value.decode())
    conf_set_log_cb(conf, None)  # what matters comes back as an error of a call
    return int(conf)


def open_client(kind: int, conf: int) -> int:
    """The handle of a PRODUCER or CONSUMER; the configuration is used up. Raises ClientError."""
    text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
    handle = new(kind, conf, text, _ERROR_TEXT_BYTES)
    if not handle:
        conf_destroy(conf)
        raise ClientError("opening a client", -1, text.value.decode())
    return int(handle)
