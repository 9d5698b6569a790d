/* An extension module that leaks: what w4c_cext.py calls. */
#include <Python.h>
#include <stdlib.h>

/* malloc(n), touched, its pointer dropped. */
static PyObject *leak_malloc(PyObject *self, PyObject *args)
{
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "n", &n))
        return NULL;
    /* volatile: or the compiler sees that nobody reads it and leaves the malloc out */
    volatile char *p = malloc(n);
    if (p == NULL)
        return PyErr_NoMemory();
    p[0] = 1;
    Py_RETURN_NONE;
}

/* A float and a str, each with one reference that nobody holds. */
static PyObject *leak_ref(PyObject *self, PyObject *unused)
{
    if (PyFloat_FromDouble(1234.5) == NULL || PyUnicode_FromString("leaked-string-object") == NULL)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"leak_malloc", leak_malloc, METH_VARARGS, ""},
    {"leak_ref", leak_ref, METH_NOARGS, ""},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "leakext", NULL, -1, methods};

PyMODINIT_FUNC PyInit_leakext(void)
{
    return PyModule_Create(&module);
}
