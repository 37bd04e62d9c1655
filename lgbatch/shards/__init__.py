"""Large sets: units of work that any number of processes and machines do, and their merge into an ordinary workspace.

plan.json and the steps are never changed. A unit's result is a store, and its marker, written last, says that it is
done. Leases only save double work: results do not depend on them.
"""
