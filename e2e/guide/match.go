package guide

import (
	"fmt"
	"regexp"
	"strings"
)

// gap stands for anything: lines where it is a whole line, text within one.
const gap = "…"

var blanks = regexp.MustCompile(`[ \t]+`)

// match returns nil when output is what a guide shows, and else says which line
// of it is not there.
func match(shows []string, output string) error {
	if len(shows) == 0 {
		return nil
	}
	var lines []string
	for line := range strings.Lines(output) {
		lines = append(lines, plain(line))
	}
	got := strings.Join(lines, "")
	if pattern(shows, `\z`).MatchString(got) {
		return nil
	}
	for i, line := range shows {
		if !pattern(shows[:i+1], "").MatchString(got) {
			return fmt.Errorf("the output does not have line %d of what is shown, %q", i+1, line)
		}
	}
	return fmt.Errorf("there is more output than the %d lines that are shown", len(shows))
}

// plain is a line as it is compared, with its end.
func plain(line string) string {
	return strings.TrimRight(blanks.ReplaceAllString(line, " "), " \r\n") + "\n"
}

func pattern(shows []string, end string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range shows {
		line = plain(line)
		if line == gap+"\n" {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		parts := strings.Split(line, gap)
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		b.WriteString(strings.Join(parts, `.*`))
	}
	b.WriteString(end)
	return regexp.MustCompile(b.String())
}
