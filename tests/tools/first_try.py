"""pytest plugin: why a test that was tried again failed at first."""


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("rerun", []):
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr)
        terminalreporter.write_line("first try of %s (%.0f s): %s" % (
            report.nodeid, report.duration, " ".join(why.split())[:400]))
