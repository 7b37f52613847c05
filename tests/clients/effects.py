"""The effects of a worker: rows of a database. JOBS_FATE says at which delivery it is killed, amid its work ("amid:4") or after it ("done:4")."""

import os
import signal
import sqlite3

FOLDER = os.environ.get("JOBS_FOLDER", ".")
HOW, _, AT = os.environ.get("JOBS_FATE", "").partition(":")


class Effects:
    def __init__(self, late_acks=False):
        # Jobs whose acks may not have been sent.
        self.unsure = [] if late_acks else None
        self.count = 0
        self.database = sqlite3.connect(os.path.join(FOLDER, "jobs.db"), timeout=20, isolation_level=None)
        self.database.execute("CREATE TABLE IF NOT EXISTS jobs (id TEXT)")

    def work(self, job):
        """Does the job, in one transaction. The caller acks it."""
        self.count += 1
        self.database.execute("BEGIN IMMEDIATE")
        self.database.execute("INSERT INTO jobs VALUES (?)", (job,))
        self.die("amid", job)
        self.database.execute("COMMIT")
        self.die("done", job)
        if self.unsure is not None:
            self.unsure.append(job)

    def die(self, how, job):
        if (how, str(self.count)) == (HOW, AT):
            with open(os.path.join(FOLDER, "deaths"), "a", encoding="utf-8") as deaths:
                deaths.write(f"{how} {job}\n")
                deaths.writelines(f"unsure {job}\n" for job in self.unsure or [])
            os.kill(os.getpid(), signal.SIGKILL)
