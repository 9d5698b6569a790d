# Tasks are kept in a set so that they are not collected, and nobody takes them out or awaits them.
import asyncio
background = set()
async def notify(n):
    return {'user': n, 'text': 'hello %d' % n}
async def serve():
    for n in range(2000):
        background.add(asyncio.get_running_loop().create_task(notify(n)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
loop = asyncio.new_event_loop()
loop.run_until_complete(serve())
