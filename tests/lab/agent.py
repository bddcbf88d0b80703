"""A host of the kernel lab as the tests see it: agent.py ADDRESS [ike].

Takes requests at ADDRESS, port 99: one JSON object a connection, until the sender shuts its side; answers likewise.
  {"run": "shell lines"}                        -> {"status": 0, "output": "..."}
  {"probe": [[source, target, pings, size]]}    -> {"faults": ["", ...]}   an empty text: all came back as it was sent
                                                   (pings: a list of their sizes; size: bytes over TCP)
  {"put": {path: text, ...}}                    -> {}   files, for their owner alone
  {"await": [path, text, seconds]}              -> {"found": true}   a file with the text in it
  {"kill": path}                                -> {}   the process whose id is in the file, which goes; it is gone then
  {"stream": [source, target, rate]}            -> {}   begins to send numbered pings, so many a second
  {"settle": true}                              -> {"sent": 100, "lost": [], "twice": []}   ends that, and waits for the last
  {"expire": [target, protocol, spi]}           -> {"error": 0}   the SA is said to have come to its soft lifetime; spi: "0x..."
  {"wrap": [source, target, protocol, header, from, to]} -> {"fault": ""}   a ping in a packet of a tunnel of others
Echoes at every address: TCP port 7, the whole stream once its sender has ended it.
Receives ESP in UDP at port 4500 for the kernel, as an IKE daemon does; with `ike` it leaves that to one.
"""
import json
import os
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time

CONTROL, ECHO, ENCAPSULATED = 99, 7, 4500
PATIENCE = 5.0
UDP_ENCAP, UDP_ENCAP_ESPINUDP = 100, 2
IP_XFRM_POLICY, IPV6_XFRM_POLICY = 17, 35


def whole(connection):
    """Everything up to the end of the stream."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(PATIENCE)
        self.request.sendall(whole(self.request))


class Control(socketserver.BaseRequestHandler):
    def handle(self):
        request = json.loads(whole(self.request))
        if "run" in request:
            # By way of the standard input: an argument is limited.
            lines = request["run"].encode()
            ran = subprocess.run(["sh", "-e"], input=lines, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            answer = {"status": ran.returncode, "output": ran.stdout.decode(errors="replace")}
        elif "put" in request:
            for path, text in request["put"].items():
                put(path, text)
            answer = {}
        elif "await" in request:
            answer = {"found": found(*request["await"])}
        elif "kill" in request:
            killed(request["kill"])
            answer = {}
        elif "stream" in request:
            Stream.now = Stream(*request["stream"])
            answer = {}
        elif "settle" in request:
            stream, Stream.now = Stream.now, None
            answer = stream.settle() if stream else {}
        elif "expire" in request:
            answer = {"error": expired(*request["expire"])}
        elif "wrap" in request:
            answer = {"fault": wrapped(*request["wrap"])}
        else:
            answer = {"faults": [probe(*each) for each in request["probe"]]}
        self.request.sendall(json.dumps(answer).encode())


class Stream:
    """Numbered pings at a steady rate, and how often each was answered."""

    now = None

    def __init__(self, source, target, rate):
        six = ":" in source
        self.six, self.target, self.rate, self.sent, self.answers = six, target, rate, 0, {}
        self.mark, self.ended = os.urandom(16), False
        family = socket.AF_INET6 if six else socket.AF_INET
        self.icmp = socket.socket(family, socket.SOCK_RAW, socket.getprotobyname("ipv6-icmp" if six else "icmp"))
        self.icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.icmp.bind((source, 0))
        self.icmp.settimeout(0.1)
        self.sender, self.receiver = (threading.Thread(target=each) for each in (self.send, self.receive))
        self.sender.start()
        self.receiver.start()

    def send(self):
        due = time.monotonic()
        while not self.ended:
            ask = 128 if self.six else 8
            message = struct.pack("!BBHHH", ask, 0, 0, 0x4301, self.sent & 0xFFFF) + self.mark + struct.pack("!I", self.sent)
            if not self.six:
                message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
            self.icmp.sendto(message, (self.target, 0))
            self.sent += 1
            # After a stall at the same rate, without catching up.
            due = max(due + 1 / self.rate, time.monotonic())
            time.sleep(max(0, due - time.monotonic()))

    def receive(self):
        patience = PATIENCE
        while patience > 0 and not (self.ended and len(self.answers) == self.sent):
            if self.ended:
                patience -= 0.1
            try:
                packet, _ = self.icmp.recvfrom(1 << 16)
            except TimeoutError:
                continue
            reply = packet if self.six else packet[(packet[0] & 15) * 4 :]
            if reply[0] == (129 if self.six else 0) and reply[8:24] == self.mark:
                number = struct.unpack("!I", reply[24:28])[0]
                self.answers[number] = self.answers.get(number, 0) + 1

    def settle(self):
        self.ended = True
        self.sender.join()
        self.receiver.join()
        self.icmp.close()
        lost = [number for number in range(self.sent) if number not in self.answers]
        return {"sent": self.sent, "lost": lost, "twice": [number for number, times in self.answers.items() if times > 1]}


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address, handler):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


def put(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def found(path, text, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(path, errors="replace") as file:
                if text in file.read():
                    return True
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    return False


def killed(path):
    try:
        with open(path) as file:
            pid = int(file.read())
    except FileNotFoundError:
        return
    os.remove(path)
    # One that nobody waits for stays as a zombie, which runs nothing.
    running = f"/proc/{pid}/exe"
    while os.path.exists(running):
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def probe(source, target, pings, size):
    """Why what was sent did not come back, if so."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    try:
        for number, length in enumerate(pings):
            ping_again(family, source, target, number, os.urandom(length))
        if size:
            echo(family, source, target, os.urandom(size))
    except (OSError, ValueError) as error:
        return str(error) or repr(error)
    return ""


def ping_again(family, source, target, number, payload):
    """Up to three times: a full queue drops one packet, an SA that does not fit drops each."""
    for left in (2, 1, 0):
        try:
            return ping(family, source, target, number, payload)
        except ValueError as fault:
            if left == 0 or "no answer" not in str(fault):
                raise


def ping(family, source, target, number, payload):
    six = family == socket.AF_INET6
    ask, answer = (128, 129) if six else (8, 0)
    message = struct.pack("!BBHHH", ask, 0, 0, threading.get_native_id() & 0xFFFF, number) + payload
    if not six:
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with socket.socket(family, socket.SOCK_RAW, socket.getprotobyname("ipv6-icmp") if six else socket.IPPROTO_ICMP) as icmp:
        icmp.bind((source, 0))
        icmp.sendto(message, (target, 0))
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([icmp], [], [], left)[0]:
                break
            packet, sender = icmp.recvfrom(1 << 16)
            reply = packet if six else packet[(packet[0] & 15) * 4 :]
            if reply[0] == answer and reply[4:8] == message[4:8] and sender[0] == target:
                if reply[8:] != payload:
                    raise ValueError(f"ping {number}: other bytes came back")
                return
    raise ValueError(f"ping {number}: no answer")


def expired(target, protocol, spi):
    """XFRM_MSG_EXPIRE, which the kernel hands on to all who manage SAs; the error number of its answer."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    # struct xfrm_user_expire: the SA (its identity is at 56), and whether the lifetime is the hard one.
    message = bytearray(232)
    address = socket.inet_pton(family, target)
    message[56 : 56 + len(address)] = address
    struct.pack_into("!IB", message, 72, int(spi, 16), {"esp": 50, "ah": 51}[protocol])
    struct.pack_into("=H", message, 212, family)
    request_and_acknowledge = 5
    head = struct.pack("=IHHII", 16 + len(message), 0x18, request_and_acknowledge, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6) as netlink:
        netlink.settimeout(PATIENCE)
        netlink.send(head + message)
        return struct.unpack_from("=i", netlink.recv(4096), 16)[0]


def wrapped(source, target, protocol, header, inner_source, inner_target):
    """As probe, with one IPv4 ping behind an IP header of `protocol` and the bytes `header` (hex)."""
    header, payload = bytes.fromhex(header), os.urandom(900)
    ask = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + payload
    ask = ask[:2] + struct.pack("!H", checksum(ask)) + ask[4:]
    ends = socket.inet_aton(inner_source) + socket.inet_aton(inner_target)
    inner = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(ask), 1, 0, 64, 1, 0) + ends
    inner = inner[:10] + struct.pack("!H", checksum(inner)) + inner[12:] + ask
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
        raw.bind((source, 0))
        raw.sendto(header + inner, (target, 0))
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
            packet, sender = raw.recvfrom(1 << 16)
            if sender[0] == target and packet[20 : 20 + len(header)] == header:
                reply = packet[40 + len(header) :]
                return "" if reply[0] == 0 and reply[8:] == payload else f"another answer: {reply[:16].hex()}"
    return "no answer"


def checksum(message):
    if len(message) % 2:
        message += b"\0"
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(family, source, target, payload):
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE)
        stream.bind((source, 0))
        try:
            stream.connect((target, ECHO))
            stream.sendall(payload)
            stream.shutdown(socket.SHUT_WR)
            back = whole(stream)
        except OSError as error:
            raise ValueError(f"TCP: {error}") from error
    if back != payload:
        raise ValueError(f"TCP: {len(back)} of {len(payload)} bytes came back" + ", others" * (len(back) == len(payload)))


def encapsulated(family):
    """A socket through which the kernel takes ESP in UDP; itself it is past all policies (as IKE is)."""
    six = family == socket.AF_INET6
    taking = socket.socket(family, socket.SOCK_DGRAM)
    if six:
        taking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for direction in (0, 1):
        # struct xfrm_userpolicy_info: everything (no limits), the direction, action ALLOW.
        policy = bytearray(168)
        struct.pack_into("=H", policy, 40, family)
        struct.pack_into("=8Q", policy, 56, *[2**64 - 1] * 4, *[0] * 4)
        policy[160] = direction
        level, option = (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY) if six else (socket.IPPROTO_IP, IP_XFRM_POLICY)
        taking.setsockopt(level, option, bytes(policy))
    taking.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
    taking.bind(("::" if six else "0.0.0.0", ENCAPSULATED))
    return taking


servers = [Server((address, ECHO), Echo) for address in ("0.0.0.0", "::")]
if os.getpid() == 1 and "ike" not in sys.argv:
    kept = [encapsulated(family) for family in (socket.AF_INET, socket.AF_INET6)]
servers.append(Server((sys.argv[1], CONTROL), Control))
for server in servers[:-1]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[-1].serve_forever()
