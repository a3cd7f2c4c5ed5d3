"""One node as a process of its own, for tests that kill and stop it.

    python raft_node_process.py ID DIRECTORY CONTROL_PORT PEERS_JSON

On the control port each line is a request, `WORD [ARGUMENT]`, answered by one line: `ok RESULT` or `error CODE`.
"""

import asyncio
import json
import sys

from raft_cluster import SETTINGS, Recorder

from denizen.raft import Node, RaftError
from denizen.raft.runtime.envelope import SessionRequest


async def main(id: int, directory: str, control_port: int, peers: dict[int, str]) -> None:
    machine = Recorder()
    node = Node(id, directory, peers, machine, SETTINGS)
    await node.start()

    async def answer(word: str, argument: str) -> str:
        if word == "propose":
            return str(await node.propose(argument.encode(), timeout_s=5))
        if word == "propose_once":
            session, number, command = argument.split(" ", 2)
            request = SessionRequest(int(session), int(number), int(number))
            return str(await node.propose(command.encode(), session=request, timeout_s=5))
        if word == "open_session":
            return str((await node.open_session(timeout_s=5)).id)
        if word == "read":
            await node.read(timeout_s=5)
            return b",".join(machine.commands).decode()
        return str(node.leader or 0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            word, _, argument = line.decode().strip().partition(" ")
            try:
                writer.write(f"ok {await answer(word, argument)}\n".encode())
            except RaftError as error:
                writer.write(f"error {error.code}\n".encode())
        writer.close()

    await asyncio.start_server(serve, "127.0.0.1", control_port, limit=1 << 24)
    print("ready", flush=True)
    cause = await node.wait_stopped()
    sys.exit(f"stopped: {cause}")


if __name__ == "__main__":
    _, id, directory, control_port, peers = sys.argv
    asyncio.run(main(int(id), directory, int(control_port), {int(k): v for k, v in json.loads(peers).items()}))
