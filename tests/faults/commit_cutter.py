"""Stands between a worker and PostgreSQL and cuts a connection around a COMMIT, when it is told to.

usage: commit_cutter.py PORT SERVER_HOST SERVER_PORT ORDER_FILE

ORDER_FILE holds "HOW STATEMENT": the next transaction that uses the prepared statement of that name (NAME:row: and gets a
row) loses its connection
    before  the server hears of COMMIT: nothing happened
    after   the server has committed: its answer is lost
    late    the client is cut off, and the server hears of COMMIT a second later: what the client reads meanwhile is
            older than what it wrote
A statement outside BEGIN and COMMIT is a transaction of its own ("after" only). The file is removed by the cut, which is
then told on standard output.
"""

import os
import select
import socket
import struct
import sys
import threading
import time

port, server, order_file = int(sys.argv[1]), (sys.argv[2], int(sys.argv[3])), sys.argv[4]
order_lock = threading.Lock()


def ordered(how, names):
    """Whether this is the transaction to cut; takes the order when it is."""
    with order_lock:
        try:
            with open(order_file) as file:
                wanted = file.read().split()
        except FileNotFoundError:
            return False
        if len(wanted) != 2 or wanted[0] != how or wanted[1] not in names:
            return False
        os.unlink(order_file)
    print("cut", how, wanted[1], flush=True)
    return True


def receive(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def messages(buffer):
    """Takes whole messages (type, length, body) off the front of a buffer."""
    while len(buffer) >= 5:
        size = 1 + struct.unpack("!I", buffer[1:5])[0]
        if len(buffer) < size:
            return
        message = bytes(buffer[:size])
        del buffer[:size]
        yield message


def start(client):
    """Relays the start-up message; TLS and GSS are declined. None: a cancel request, which is dropped."""
    while True:
        head = receive(client, 8)
        size, code = struct.unpack("!II", head)
        if code in (80877103, 80877104):
            client.sendall(b"N")
            continue
        body = receive(client, size - 8)
        if code == 80877102:
            return None
        upstream = socket.create_connection(server)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.sendall(head + body)
        return upstream


def relay(client, upstream):
    """Until one side ends or the order comes."""
    to_server, to_client, names, held, name = bytearray(), bytearray(), set(), b"", ""
    while True:
        for ready in select.select([client, upstream], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            if ready is client:
                to_server += data
                for message in messages(to_server):
                    if message[:1] == b"B":
                        name = message[5:].split(b"\0")[1].decode()
                        names.add(name)
                    if message == b"Q\0\0\0\x0bCOMMIT\0":
                        if ordered("before", names):
                            return
                        if ordered("late", names):
                            client.close()
                            time.sleep(1)  # the delay itself, not a synchronisation
                            upstream.sendall(message)
                            while upstream.recv(65536).find(b"Z\0\0\0\x05I") < 0:
                                pass
                            return
                    upstream.sendall(message)
            else:
                to_client += data
                for message in messages(to_client):
                    held += message
                    if message[:1] == b"D":
                        names.add(name + ":row")
                    if message[:1] in b"12CDTtns":  # parts of an answer that goes on
                        continue
                    if message == b"Z\0\0\0\x05I":
                        if ordered("after", names):
                            return
                        names.clear()
                    client.sendall(held)
                    held = b""


def serve(client):
    upstream = None
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream = start(client)
        if upstream:
            relay(client, upstream)
    except (EOFError, OSError):
        pass
    finally:
        client.close()
        if upstream:
            upstream.close()


def main():
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


main()
