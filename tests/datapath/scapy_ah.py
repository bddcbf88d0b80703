"""Seals and opens AH with Scapy. A case a line as JSON on standard input, an answer a line on standard output.

Case: op (seal, open), algorithm, key, spi, sequence, esn (null, or the high 32 bits), packet; tunnel: null, or for seal
the outer header, for open anything else. Bytes are in hex. Answer: packet, or error.
"""
import json
import sys

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, SecurityAssociation
from scapy.packet import raw


def parse(text):
    packet = bytes.fromhex(text)
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)


for line in sys.stdin:
    case = json.loads(line)
    esn = {} if case["esn"] is None else {"esn_en": True, "esn": case["esn"]}
    tunnel = case["tunnel"] and parse(case["tunnel"])
    sa = SecurityAssociation(
        AH, spi=case["spi"], auth_algo=case["algorithm"], auth_key=bytes.fromhex(case["key"]), tunnel_header=tunnel, **esn
    )
    packet = parse(case["packet"])
    try:
        if case["op"] == "seal":
            packet = sa.encrypt(packet, seq_num=case["sequence"])
        else:
            packet = sa.decrypt(packet)
        answer = {"packet": raw(packet).hex()}
    except Exception as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer))
