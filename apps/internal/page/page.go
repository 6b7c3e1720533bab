// Package page serves what a browser loads of a demo program: the program's
// page, and the look that all pages share.
//
// It refuses to know what a page shows.
package page

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"time"
)

//go:embed assets
var shared embed.FS

//go:embed parts/parts.html
var parts string

// Mux serves the page called name: the template page/name.html of files at
// /name, to which / leads, and page/assets and the shared assets at /assets/.
// It panics when the page is not there or no template, which a test of the
// program finds.
func Mux(files fs.FS, name string) *http.ServeMux {
	var text bytes.Buffer
	pages := template.Must(template.New("parts").Parse(parts))
	template.Must(pages.ParseFS(files, "page/"+name+".html"))
	if err := pages.ExecuteTemplate(&text, name+".html", nil); err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler("/"+name, http.StatusFound))
	mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, name+".html", time.Time{}, bytes.NewReader(text.Bytes()))
	})
	own, err := fs.Sub(files, "page")
	if err != nil {
		panic(err)
	}
	mux.Handle("GET /assets/", http.FileServerFS(own))
	for _, asset := range []string{"icon.svg", "live.js", "look.css"} {
		mux.Handle("GET /assets/"+asset, http.FileServerFS(shared))
	}
	return mux
}
