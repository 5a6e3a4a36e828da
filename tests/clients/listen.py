"""Prints "connected", then every message of a WebSocket as a line, then the close code: listen.py URL"""
import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1]) as socket:
        print("connected", flush=True)
        try:
            async for message in socket:
                print(message, flush=True)
        except websockets.ConnectionClosed:
            pass
        print(f"closed {socket.close_code}", flush=True)


asyncio.run(main())
