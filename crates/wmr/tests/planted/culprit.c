/* An extension with one mistake a function, each of those that people make. */
#include <Python.h>
#include <structmember.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>


/* A block that the compiler must not do without. */
static void *block(long size) {
    void *made = memset(malloc(size), 0x5a, size);
    __asm__ volatile("" : : "r"(made) : "memory");
    return made;
}

/* A new float whose reference is not given back. */
static PyObject *lose_float(PyObject *module, PyObject *number) {
    double value = PyFloat_AsDouble(number);
    PyFloat_FromDouble(value + 0.5);
    Py_RETURN_NONE;
}

/* A list with what is in it. */
static PyObject *lose_list(PyObject *module, PyObject *item) {
    PyObject *list = PyList_New(0);
    PyList_Append(list, item);
    Py_RETURN_NONE;
}

/* Takes a reference and keeps it in a place that it forgets: what the caller has lives for ever. */
static PyObject *forget(PyObject *module, PyObject *object) {
    Py_INCREF(object);
    Py_RETURN_NONE;
}

/* One Py_DECREF too many. */
static PyObject *overdo(PyObject *module, PyObject *object) {
    Py_DECREF(object);
    Py_RETURN_NONE;
}

/* A block that is never freed. */
static PyObject *lose_block(PyObject *module, PyObject *size) {
    long n = PyLong_AsLong(size);
    block(n);
    Py_RETURN_NONE;
}

/* A block that knows where it comes from. */
struct request { const char *origin; void (*finish)(void *); struct request *next; char url[200]; };
static void finish(void *unused) { (void)unused; }
static PyObject *lose_request(PyObject *module, PyObject *nothing) {
    struct request *r = calloc(1, sizeof *r);
    r->origin = "culprit";
    r->finish = finish;
    strcpy(r->url, "http://example.org/index.html");
    __asm__ volatile("" : : "r"(r) : "memory");
    Py_RETURN_NONE;
}

static void *in_a_thread(void *size) {
    long n = (long)size;
    for (int i = 0; i < 50; i++) block(n);
    return NULL;
}

/* The same in a thread of its own, which has ended. */
static PyObject *lose_in_thread(PyObject *module, PyObject *size) {
    pthread_t thread;
    long n = PyLong_AsLong(size);
    if (pthread_create(&thread, NULL, in_a_thread, (void *)n) == 0) pthread_join(thread, NULL);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"lose_float", lose_float, METH_O, NULL},
    {"lose_list", lose_list, METH_O, NULL},
    {"forget", forget, METH_O, NULL},
    {"overdo", overdo, METH_O, NULL},
    {"lose_block", lose_block, METH_O, NULL},
    {"lose_request", lose_request, METH_NOARGS, NULL},
    {"lose_in_thread", lose_in_thread, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "culprit", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_culprit(void) {
    return PyModule_Create(&definition);
}
