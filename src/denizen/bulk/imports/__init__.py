"""Import: files of people into a running deployment, by binary COPY and under every rule of the online path.

    source → windows → worker processes: people → round (reserve → append → confirm) → report, journal, progress

The parent reads and cuts; workers do the rest, each with its own connections. See DESIGN.md beside this file.
"""
