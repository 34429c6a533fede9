"""A bar chart of ratios as SVG text: one group for each workload, one bar for each peer."""
import html, math

COLOURS = ("#4878b0", "#d1783c")
LEFT, WIDTH, BAR, GAP = 290, 400, 14, 12


def chart(groups):
    """`groups`: (name, [(peer, ratio or None)]). The axis is logarithmic; 1 is rbc."""
    largest = max((r for _, bars in groups for _, r in bars if r), default=1)
    decades = max(1, math.ceil(math.log10(largest)))
    at = lambda r: LEFT + WIDTH * (math.log10(max(r, 0.1)) + 1) / (decades + 1)
    peers = list(dict.fromkeys(peer for _, bars in groups for peer, _ in bars))
    out, y = [], 40
    for name, bars in groups:
        middle = y + len(bars) * BAR / 2 + 4
        out.append('<text x="%d" y="%.0f" text-anchor="end">%s</text>' % (LEFT - 8, middle, html.escape(name)))
        for peer, r in bars:
            label = "–" if r is None else "%.1f ×" % r
            end = at(1 if r is None else r)
            if r is not None:
                x, width = min(at(1), end), abs(end - at(1))
                out.append('<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>'
                           % (x, y, max(width, 1), BAR - 2, COLOURS[peers.index(peer) % len(COLOURS)]))
            out.append('<text x="%.1f" y="%d">%s</text>' % (max(end, at(1)) + 4, y + BAR - 3, label))
            y += BAR
        y += GAP
    for power in range(-1, decades + 1):
        x = at(10 ** power)
        out.append('<line x1="%.1f" x2="%.1f" y1="34" y2="%d" stroke="#999" stroke-width="%s"/>'
                   % (x, x, y, "1.5" if power == 0 else "0.4"))
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%g ×</text>' % (x, y + 14, 10 ** power))
    x = LEFT
    for n, peer in enumerate(peers):
        out.append('<rect x="%d" y="10" width="10" height="10" fill="%s"/><text x="%d" y="19">%s</text>'
                   % (x, COLOURS[n % len(COLOURS)], x + 14, html.escape(peer)))
        x += 90
    out.append('<text x="8" y="19">times as long as rbc</text>')
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">\n'
            '<title>How many times as long other builders take as rbc</title>\n'
            '<rect width="100%%" height="100%%" fill="#fff"/>\n%s\n</svg>\n'
            % (LEFT + WIDTH + 60, y + 24, "\n".join(out)))
