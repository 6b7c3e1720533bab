package evidence

import (
	"bytes"
	_ "embed" // the page
	"fmt"
	"html/template"
	"path"
	"path/filepath"
	"time"

	"github.com/fedlab-dev/fedlab/lab/look"
)

//go:embed index.html
var indexText string

// index is the file that shows what is in a folder. It opens without a server.
const index = "index.html"

// section is a piece that the index shows: its text as the folder has it, or a link to a page.
type section struct {
	Title, Path, Text string
}

// Page says that the piece is a page by itself.
func (s section) Page() bool { return path.Ext(s.Path) == ".html" }

// indexOf makes the index of a folder. There is nothing in it that the folder does not have.
func indexOf(s Summary, shown []section, at time.Time) ([]byte, error) {
	page, err := template.New(index).Funcs(template.FuncMap{"css": look.CSS}).Parse(indexText)
	var text bytes.Buffer
	if err == nil {
		err = page.Execute(&text, struct {
			Summary
			Name, At string
			Shown    []section
		}{s, filepath.Base(s.Dir), at.UTC().Format("2 January 2006, 15:04:05 UTC"), shown})
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", index, err)
	}
	return text.Bytes(), nil
}
