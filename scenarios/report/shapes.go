package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// authority draws a shape with the look of an authority; more is a class of the
// shape alone.
func (d *drawing) authority(id, more, shape, title string) {
	l := d.authorities.Look(id)
	d.path(l.Colour+more, shape, title)
	for _, p := range l.Patterns {
		d.path(p+more, shape, title)
	}
}

// classOf is the class of an outcome, which the style sheet counts.
func classOf(o traffic.Outcome) string { return fmt.Sprintf("call o%d", severity(o)) }

// glyphs are the shapes above calls that were not answered, by their severity
// less one, as corners about 0: who cannot tell their colours can tell them.
func glyphs() [][]float64 {
	return [][]float64{
		{0, -1, .7, -.7, 1, 0, .7, .7, 0, 1, -.7, .7, -1, 0, -.7, -.7}, // a disc
		{-1, -1, 1, -1, -1, 1, 1, 1},                                   // an hourglass
		{0, -1, 1, 0, 0, 1, -1, 0},                                     // a diamond
		{0, -1, 1, .9, -1, .9},                                         // a triangle
		{-1, -.9, 1, -.9, 0, 1},                                        // one on its head
		{-.9, -.9, .9, -.9, .9, .9, -.9, .9},                           // a square
		{-1, -.4, 1, -.4, 1, .4, -1, .4},                               // a bar
		{-1, -.6, -.6, -1, 0, -.4, .6, -1, 1, -.6, .4, 0, 1, .6, .6, 1, 0, .4, -.6, 1, -1, .6, -.4, 0},                       // a cross
		{-.35, -1, .35, -1, .35, -.35, 1, -.35, 1, .35, .35, .35, .35, 1, -.35, 1, -.35, .35, -1, .35, -1, -.35, -.35, -.35}, // a plus
		{0, -1, .3, -.3, 1, -.2, .45, .25, .6, 1, 0, .55, -.6, 1, -.45, .25, -1, -.2, -.3, -.3},                              // a star
	}
}

// glyph draws an outcome's shape about a point.
func glyph(o traffic.Outcome, x, y, size float64) string {
	all := glyphs()
	corners := all[(severity(o)-1)%len(all)]
	var b strings.Builder
	for i := 0; i < len(corners); i += 2 {
		command := "L"
		if i == 0 {
			command = "M"
		}
		b.WriteString(command + number(x+corners[i]*size) + " " + number(y+corners[i+1]*size))
	}
	return b.String() + "Z"
}

func rect(x, y, w, h float64) string {
	return "M" + number(x) + " " + number(y) + "h" + number(w) + "v" + number(h) + "h" + number(-w) + "Z"
}

func line(x1, y1, x2, y2 float64) string {
	return "M" + number(x1) + " " + number(y1) + "L" + number(x2) + " " + number(y2)
}

// number writes a length as short as it can be told on a screen.
func number(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }

// letter is how wide a letter of the picture's text is, on the safe side.
const letter = 12.0

func textWidth(s string) float64 {
	w := 0.0
	for _, r := range s {
		w += letter
		if r >= 0x1100 { // from here on are scripts with letters of twice the width
			w += letter
		}
	}
	return w
}

// cut shortens a text to what has the room.
func cut(s string, room float64) string {
	if textWidth(s) <= room {
		return s
	}
	used := letter // the dots
	for i, r := range s {
		if used += textWidth(string(r)); used > room {
			return strings.TrimRight(s[:i], " ") + "…"
		}
	}
	return s
}
