"""Prints "connected", which extensions were agreed on, then so many messages of a WebSocket as lines: view.py URL COUNT
deflate|plain. With deflate it also says something long, compressed, and "pong" when a ping after it is answered."""
import asyncio
import sys

import websockets


async def main():
    url, count, compression = sys.argv[1:]
    compression = "deflate" if compression == "deflate" else None
    async with websockets.connect(url, compression=compression) as socket:
        print("connected", flush=True)
        print(socket.response.headers.get("Sec-WebSocket-Extensions"), flush=True)
        if compression:
            await socket.send("what a client says " * 1000)
            await socket.send([b"in ", b"fragments " * 500])
            await (await socket.ping())
            print("pong", flush=True)
        for _ in range(int(count)):
            print(await socket.recv(), flush=True)


asyncio.run(main())
