# C++ objects that are made and never deleted.
import sessions
for n in range(500):
    sessions.open_session(n)
