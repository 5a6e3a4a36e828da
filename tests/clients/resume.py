"""Prints "connected", the header X-Resume-Status, then so many messages of a WebSocket as lines: resume.py URL COUNT"""
import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1]) as socket:
        print("connected", flush=True)
        print(socket.response.headers.get("X-Resume-Status"), flush=True)
        for _ in range(int(sys.argv[2])):
            print(await socket.recv(), flush=True)


asyncio.run(main())
