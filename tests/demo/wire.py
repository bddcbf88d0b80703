"""The demo's helpers, with nothing but Python's own library.

  wire.py watch DEVICE OUT   count what passes DEVICE, by kind, until SIGTERM; then write OUT
  wire.py receive ADDR FILE  take one file over TCP, port 7000
  wire.py send ADDR FILE     send one
"""
import collections
import signal
import socket
import sys

PORT = 7000


def kind(frame):
    """What a frame is, to somebody without keys."""
    ether = int.from_bytes(frame[12:14], "big")
    if ether == 0x0806:
        return "ARP"
    if ether == 0x86DD:
        # Neighbour discovery and the like: local to the link.
        return "IPv6 link-local" if frame[22:24] == b"\xfe\x80" or frame[38] == 0xFF else "IPv6 in clear"
    if ether != 0x0800:
        return f"ethertype {ether:#06x}"
    head = 14 + (frame[14] & 15) * 4
    if frame[23] == 50:
        return "ESP"
    if frame[23] == 17:
        ports = {int.from_bytes(frame[head : head + 2], "big"), int.from_bytes(frame[head + 2 : head + 4], "big")}
        if 500 in ports:
            return "IKE"
        if 4500 in ports:
            return "IKE" if frame[head + 8 : head + 12] == bytes(4) else "ESP in UDP"
    if frame[23] == 1 and frame[head] == 3 and int.from_bytes(frame[head + 30 : head + 32], "big") in (500, 4500):
        return "ICMP: IKE came before the other daemon listened"
    return f"in clear, IP protocol {frame[23]}"


def watch(device, out):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    link.bind((device, 0))
    packets, octets, marked = collections.Counter(), collections.Counter(), 0

    def end(*_):
        with open(out, "w") as file:
            for name, count in packets.most_common():
                print(f"{count:8} packets {octets[name]:10} bytes  {name}", file=file)
            print(f"{marked:8} packets that show a line of the file", file=file)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    print("watching", flush=True)
    while True:
        frame = link.recv(65536)
        name = kind(frame)
        packets[name] += 1
        octets[name] += len(frame)
        marked += b"the secret recipe" in frame


def receive(address, path):
    with socket.create_server((address, PORT)) as server:
        print("listening", flush=True)
        stream, _ = server.accept()
        with stream, open(path, "wb") as file:
            while data := stream.recv(1 << 16):
                file.write(data)


def send(address, path):
    with socket.create_connection((address, PORT), timeout=20) as stream, open(path, "rb") as file:
        stream.sendfile(file)


{"watch": watch, "receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
