// Package page serves what a browser loads of a demo program: the program's
// page, and the look and the manners that all pages share.
//
// It refuses to know what a page shows.
package page

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"time"
)

//go:embed assets
var shared embed.FS

//go:embed parts/parts.html
var parts string

// contentPolicy lets a page load from its own program and nowhere else.
const contentPolicy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

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

// Secure answers as next does, tells the browser to load nothing from elsewhere,
// and refuses a request that names another host than this machine, an address or
// one of names: a page of a stranger can have its own name lead here (DNS
// rebinding), and would read what the browser may see. A browser that was given
// an address has asked for that address.
func Secure(next http.Handler, names Names) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if !names.has(r.Host) {
			http.Error(w, fmt.Sprintf("this page does not answer to the host %q: open it as localhost, by an address%s", r.Host, names.or()), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
