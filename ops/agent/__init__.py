"""The program that runs on a server while a command works on it: standard library only, Python 3.10 or newer.

It is sent over the SSH connection, holds the lock, writes files and waits for conditions close to where they happen;
it leaves nothing behind and ends when the connection does.
"""
