// Package quotes is the protocol between the stock-quotes server and its
// clients, generated from quotes.proto. It knows nothing of identity.
//
// To generate it again, have protoc on the PATH together with the two plugins in the
// versions that the generated files name.
package quotes

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative quotes.proto
